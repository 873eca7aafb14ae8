"""Fuzzes one target in this process, with the memory that a reader may take.

    python -m tests.fuzz.engine TARGET OPTION_OF_LIBFUZZER… FOLDER…

Its parent, `tests.fuzz`, gives the options. The process ends when libFuzzer does.
"""

import sys
from random import Random

import atheris

with atheris.instrument_imports(include=["installer"], enable_loader_override=False):
    from tests.fuzz.limit import limit_memory
    from tests.fuzz.mutations import mutated
    from tests.fuzz.targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]

    def read(data: bytes) -> None:
        target.read(data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)  # noqa: S311  chance that can be had again
        if random.randrange(3):
            data = mutated(data, target.form, random)
        else:
            data = atheris.Mutate(data, most)
        return (target.repair(data) if random.randrange(4) else data)[:most]

    limit_memory()
    atheris.Setup(sys.argv, read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
