# Every target does the set-up it needs: make test, alone on a fresh machine, is enough.
# Variables: RELEASE=path/to/release.toml (rpm, deb), ARGS='more arguments' (test, test-unit, bench,
# fuzz, mutants), PYTHON=/path/to/python3 (the Python that .venv is made with), REHEARSE='--role app'
# (rpm, deb: more for countersign rehearse).

SHELL := /bin/bash
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

PYTHON_IN_VENV := .venv/bin/python
PYTEST := $(PYTHON_IN_VENV) -m pytest
# A file of tests stays in one process: its hosts and clusters are made once.
IN_PARALLEL := -n auto --dist loadfile
SHELL_SCRIPT_FOLDERS := .ci $(wildcard benchmarks examples tests)

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r target text; do \
	    printf '  make %-14s %s\n' "$$target" "$$text"; done

.PHONY: setup
setup: ## Install what is missing: system packages (root or sudo) and .venv
	@.ci/setup

.PHONY: demo
demo: setup ## Take an example product from a repository to four hosts, DEV and QAT made from PRD
	@$(PYTHON_IN_VENV) -m examples.demo

.PHONY: rpm
rpm: setup ## Build the signed RPM of RELEASE=path/to/release.toml (default: the example) in dist/
ifdef RELEASE
	.venv/bin/countersign check --release "$(RELEASE)"
	.venv/bin/countersign rehearse --if-possible --release "$(RELEASE)" $(REHEARSE)
	.venv/bin/countersign sign --release "$(RELEASE)"
	.venv/bin/countersign build --release "$(RELEASE)"
else
	@$(PYTHON_IN_VENV) -m examples.build
endif

.PHONY: deb
deb: setup ## Build the signed DEB of RELEASE=path/to/release.toml (default: the example) in dist/
ifdef RELEASE
	.venv/bin/countersign check --release "$(RELEASE)"
	.venv/bin/countersign rehearse --if-possible --release "$(RELEASE)" $(REHEARSE)
	.venv/bin/countersign sign --release "$(RELEASE)"
	.venv/bin/countersign build --release "$(RELEASE)" --format deb
else
	@$(PYTHON_IN_VENV) -m examples.build --format deb
endif

.PHONY: installer-rpm
installer-rpm: setup ## Build the RPM of countersign-install, for the hosts, in dist/
	$(PYTHON_IN_VENV) -m packager.installer_package --output dist

.PHONY: installer-deb
installer-deb: setup ## Build the DEB of countersign-install, for the hosts, in dist/
	$(PYTHON_IN_VENV) -m packager.installer_deb --output dist

.PHONY: test
test: setup ## Run all tests: unit, integration (private PostgreSQL), acceptance (test hosts)
	$(PYTEST) $(IN_PARALLEL) -m "not large and not soak" $(ARGS)

.PHONY: test-large
test-large: setup ## Run the tests that take minutes and gigabytes: a release of 1 GiB
	$(PYTEST) -m large -s $(ARGS)

.PHONY: soak
soak: setup ## Cut installs short at every step, and at random (SOAK_KILLS=500); takes an hour
	$(PYTEST) $(IN_PARALLEL) -m soak $(ARGS)

.PHONY: test-unit
test-unit: setup ## Run the tests that need no database, no tools and no root
	$(PYTEST) $(IN_PARALLEL) -m "not integration and not acceptance" $(ARGS)

.PHONY: coverage
coverage: setup ## Run all tests and report the branches that none of them took; none in installer/
	$(PYTEST) $(IN_PARALLEL) -m "not large and not soak" --cov --cov-report=term-missing $(ARGS)
	$(PYTHON_IN_VENV) -m coverage report --include='installer/*' --fail-under=100

.PHONY: mutants
mutants: setup ## Change the installer's decisions one at a time: does a test notice? (ARGS='*policy*')
	.venv/bin/mutmut run $(ARGS)
	.venv/bin/mutmut results

.PHONY: check
check: setup ## Check style, types, the import contracts and the shell scripts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	find $(SHELL_SCRIPT_FOLDERS) -type f \
	    -exec awk 'FNR == 1 && /^#!.*sh$$/ { print FILENAME }' {} + | xargs -r -d '\n' shellcheck

.PHONY: bench
bench: setup ## Time installing and building beside psql, rpmbuild and tar
	$(PYTHON_IN_VENV) -m benchmarks $(ARGS)

.PHONY: fuzz
fuzz: setup ## Fuzz the readers of what a host did not write, for 10 minutes (ARGS='--seconds 3600')
	$(PYTHON_IN_VENV) -m tests.fuzz $(ARGS)

.PHONY: fresh
fresh: ## Run make demo and make test, each in a bare Debian of its own (root; takes long)
	@.ci/setup debootstrap
	tests/fresh.sh

.PHONY: lock
lock: ## Write the lock files anew from pyproject.toml (ARGS=--upgrade: newest versions)
	.ci/lock $(ARGS)

.PHONY: clean
clean: ## Remove what the other targets made, apart from .venv
	rm -rf build dist *.egg-info htmlcov .coverage .coverage.* .hypothesis \
	    .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +
