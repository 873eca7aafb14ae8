"""What other programs have to say of a release before it is signed: a refresh, of new columns.

They are entry points, loaded and not imported, each a callable

    check(folders, columns) -> what is fine, in words, or ""

`folders` are those in which a file of the product's repository may lie, the nearest first: that of
release.toml, and those above it up to the repository's top. Such a file is read as release.toml is,
as it lies there. `columns` are those that the new scripts add, as `packager.columns.Added`; scripts
are parsed when the first is asked for. What it refuses, it raises.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from packager.advice import by_line, contents, new_scripts
from packager.columns import Added, Tables
from packager.project import Project
from packager.release import Release
from packager.sqlcolumns import play, statements

GROUP = "countersign.checks"

Check = Callable[[Sequence[Path], Iterable[Added]], str]


def run_checks(release: Release) -> list[str]:
    """Ask all checks about a release with a database; returns what is fine.

    Raises:
        InstallerError: a check refuses the release, or cannot read what it goes by.
    """
    if release.manifest.database is None:
        return []
    checks: list[Check] = [entry.load() for entry in entry_points(group=GROUP)]
    folders = _folders(release.project)
    said = [check(folders, added_columns(release)) for check in checks]
    return list(filter(None, said))


def added_columns(release: Release) -> Iterator[Added]:
    """The columns that the new scripts of a release give their names, in the scripts' order.

    All scripts are played: a released one has made what a new one renames.
    """
    database = release.manifest.database
    scripts = database.scripts if database else ()
    tables, new = Tables(), new_scripts(release)
    for number, (script, content) in enumerate(contents(release, scripts)):
        for line, statement in by_line(script, content, statements):
            place = (number, line) if script in new else None
            play(statement, tables, place)
    yield from tables.added([script.name for script in scripts])


def _folders(project: Project) -> list[Path]:
    """From the folder of release.toml up to the top of its working copy, which has .git or .svn."""
    folder = project.file.parent.resolve()
    above = [folder, *folder.parents]
    tops = [number for number, each in enumerate(above) if (each / f".{project.vcs}").exists()]
    return above[: tops[0] + 1] if tops else [folder]
