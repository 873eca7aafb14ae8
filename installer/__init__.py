"""The host side: verify a release, apply its database change, switch its application.

This package is the trust anchor. It imports nothing of `packager`, and psycopg and click are its
only third-party imports, each in one module.
"""

__version__ = "0.1.0"
