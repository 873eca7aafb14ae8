"""The package formats, by name. What they share is in `packager.formats.interface`."""

from collections.abc import Mapping

from packager.formats.deb import Deb
from packager.formats.interface import Format
from packager.formats.rpm import Rpm

FORMATS: Mapping[str, Format] = {"rpm": Rpm(), "deb": Deb()}
