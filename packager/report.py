"""What was found out about a release, in a file beside its manifest, for people and programs.

Nobody signs it, and nothing on a host reads it. It is about one manifest, which it names by digest.
Who has found something out writes a section, and leaves those of others as they are; a report about
another manifest, or one that does not read as a report, is begun anew.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from installer.bundle import MANIFEST
from installer.errors import MalformedError
from installer.strict_json import Fields, load_json
from installer.tree import Digest, digest_of
from packager.errors import OutputError
from packager.output import place, temporary_folder, write

REPORT = "report.json"
TYPE = "countersign-report"
FORMAT = 1


def write_report(folder: Path, sections: Mapping[str, object]) -> Path:
    """Write `sections` into the report about the manifest in `folder`; returns its file.

    Raises:
        MalformedError: a section is no strict JSON: it has a number with a fraction, for one.
        OutputError: there is no manifest, or the report cannot be written.
    """
    file = folder / REPORT
    manifest = _digest_of(folder / MANIFEST)
    document = {
        "type": TYPE,
        "format": FORMAT,
        "manifest": manifest,
        "sections": read_sections(file, manifest) | dict(sections),
    }
    raw = f"{json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True)}\n".encode()
    load_json(raw, REPORT)  # the next to write a section would begin anew if it could not read it
    with temporary_folder(folder) as temporary:
        write(temporary / REPORT, raw)
        place(temporary / REPORT, file)
    return file


def read_sections(file: Path, manifest: Digest) -> dict[str, Any]:
    """The sections of the report in `file`; none, where it is not one about that manifest.

    Raises:
        OutputError: the file is there and cannot be read.
    """
    try:
        document = load_json(file.read_bytes(), file.name)
        fields = Fields(document, file.name)
        fields.require_type(TYPE, FORMAT)
        about = fields.digest("manifest")
        fields.table("sections")
        fields.require_all_read()
    except (FileNotFoundError, MalformedError):
        return {}
    except OSError as error:
        raise OutputError(f"{file} cannot be read: {error.strerror}") from None
    return dict(document["sections"]) if about == manifest else {}


def _digest_of(file: Path) -> Digest:
    try:
        return digest_of(file.read_bytes())
    except OSError as error:
        raise OutputError(f"{file} cannot be read: {error.strerror}") from None
