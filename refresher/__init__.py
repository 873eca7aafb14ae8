"""Countersign's third program: QAT as a copy of PRD, DEV as a limited and masked one.

It imports of the installer what talks to PostgreSQL, and of the packager nothing. Nothing imports
it: the command line finds `countersign refresh` as an entry point.
"""
