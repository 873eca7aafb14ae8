"""`python -m packager` is the command `countersign`."""

from packager.cli import main

main()
