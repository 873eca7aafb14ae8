"""The example product: a git repository with a tag for each of its releases.

`examples/crm/<version>/` has what a release adds or changes; the repository is made of them in
order, with fixed names and times, so that everybody gets the same commits.
"""

import os
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent / "crm"
RELEASES = ("1.0.0", "1.1.0", "1.2.1")
BROKEN = "1.2.0"
"""A release whose third script fails; 1.2.1 takes its place."""
MASK_KEY = Path("/etc/countersign/mask.key")
"""Where the product's refresh.toml says that the key of the masks is."""

IDENTITY = {
    "GIT_AUTHOR_NAME": "CRM developers",
    "GIT_AUTHOR_EMAIL": "crm@example.org",
    "GIT_COMMITTER_NAME": "CRM developers",
    "GIT_COMMITTER_EMAIL": "crm@example.org",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


def create_repository(
    folder: Path, package_key: str | None = None, mask_key: Path = MASK_KEY
) -> None:
    """Make the product's repository in `folder`: one commit and one tag for each release.

    `package_key` is the fingerprint of the key that signs the packages, `mask_key` the file with
    the key of the masks on the machine that makes DEV's database.
    """
    folder.mkdir(parents=True)
    _git(folder, "init", "--quiet", "--initial-branch=main")
    for day, version in enumerate(sorted((*RELEASES, BROKEN)), 1):
        shutil.copytree(SOURCES / version, folder, symlinks=True, dirs_exist_ok=True)
        if package_key:
            with (folder / "release.toml").open("a", encoding="utf-8") as file:
                file.write(f'\n[signing]\npackage_key = "{package_key}"\n')
        rules = folder / "refresh.toml"
        text = rules.read_text(encoding="utf-8")
        rules.write_text(text.replace(str(MASK_KEY), str(mask_key)), encoding="utf-8")
        _git(folder, "add", "--all")
        _git(folder, "commit", "--quiet", f"--message=Release {version}", day=day)
        _git(folder, "tag", f"v{version}")


def check_out(folder: Path, version: str) -> Path:
    """Put the repository at a release; returns its release.toml."""
    _git(folder, "checkout", "--quiet", f"v{version}")
    return folder / "release.toml"


def _git(folder: Path, *arguments: str, day: int = 1) -> None:
    date = f"2026-03-{day:02}T12:00:00Z"
    environment = os.environ | IDENTITY | {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True)
