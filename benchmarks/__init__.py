"""What installing, building and refreshing cost, beside tools that do no more than the bare work.

    python -m benchmarks --repeat 5

Prints figures and asserts none: times depend on the machine and on who else uses it. What is
compared runs in turns (A B A B), so that ratios within a run mean something on a busy machine too.
docs/reference/performance.md says what is compared, and has the figures of one run.
"""
