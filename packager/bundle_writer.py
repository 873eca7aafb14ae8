"""Writes bundles: the counterpart of `installer.bundle`, which reads them.

The same release with the same signatures gives the same bytes.
"""

from base64 import encodebytes

from installer.bundle import CONTENT, END_OF_ARCHIVE, Head, tar_member


def write_bundle(head: Head, compressed: bytes) -> bytes:
    """The bundle that carries `head` and the compressed content that its manifest describes."""
    return head.serialise() + tar_member(CONTENT, compressed) + END_OF_ARCHIVE


def armour(bundle: bytes) -> bytes:
    """The bundle as text: base64 in lines of 76 columns (RFC 2045, 6.8).

    A scriptlet's body can carry it: no `%`, no shell metacharacter but `+`, `/` and `=`.
    """
    return encodebytes(bundle)
