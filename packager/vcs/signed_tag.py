"""Who signed a git tag.

The tag's object is taken apart here and its signature goes through the gate that all others go
through (`packager.signing`): git's own verification, which believes gpg's exit code and whatever
program the repository configures, is never asked. Refused are a lightweight tag, one that is not
signed with OpenPGP, one that was made under another name, and one of another commit.
"""

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from packager.errors import SigningError
from packager.signing import Signer, recognise
from packager.vcs.git import run_git

_BEGIN = b"\n-----BEGIN PGP SIGNATURE-----"


class SignedTagError(SigningError):
    """release.toml demands a signed tag, and the tag is none, or not this one."""

    hint = "`git tag -s TAG COMMIT` makes a signed tag; delete the other first: `git tag -d TAG`."


@dataclass(frozen=True, slots=True)
class _Tag:
    """A tag object: what it says it is of and is called, what was signed, and the signature."""

    header: list[bytes]
    signed: bytes
    signature: bytes


def tagger_of(folder: Path, tag: str, commit: str, now: int) -> Signer:
    """Who signed refs/tags/`tag` of the repository around `folder`; gpg's keyring has to know.

    `commit` is what the release was exported from; `now` is in seconds since 1970.

    Raises:
        SignedTagError: it is no signed tag of that name and commit, its signature is bad, or gpg
            does not know the key.
        ToolError: git or gpg is missing or failed.
    """
    shown = f"the git tag {tag!r}"
    name = run_git("rev-parse", "--verify", f"refs/tags/{tag}", cwd=folder).decode().strip()
    if run_git("cat-file", "-t", name, cwd=folder).strip() != b"tag":
        raise SignedTagError(f"{shown} is a lightweight one, which nobody can sign")
    found = _split(run_git("cat-file", "tag", name, cwd=folder))
    if not found.signature:
        raise SignedTagError(f"{shown} has no OpenPGP signature")
    expected = [b"object " + commit.encode(), b"type commit", b"tag " + tag.encode()]
    for line, meant in zip_longest(found.header[: len(expected)], expected, fillvalue=b""):
        if line != meant:
            raise SignedTagError(
                f"what was signed as {shown} says {_words(line)}, not {_words(meant)}"
            )
    try:
        signer, _ = recognise(found.signature, found.signed, now, shown, "its content")
    except SigningError as error:
        raise SignedTagError(str(error), detail=error.detail) from None
    return signer


def _split(content: bytes) -> _Tag:
    """A tag's object, as gitformat-signature(5) describes it: the last signature is the tag's."""
    begin = content.rfind(_BEGIN) + 1 or len(content)
    signed = content[:begin]
    return _Tag(signed.partition(b"\n\n")[0].split(b"\n"), signed, content[begin:])


def _words(line: bytes) -> str:
    return ascii(line.decode(errors="replace"))
