"""Build the example product's newest release into `dist/`: `make rpm`, or deb, without a RELEASE.

The repository and the developer's key are made for it, below `build/example/`, and the key is gone
afterwards: it signs nothing but this. The signatures of earlier runs, which nobody can check any
more, are removed.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from examples.product import RELEASES, check_out, create_repository
from tests.keys import Keyring

WORK = Path("build/example")


def main() -> None:
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.rmtree(Path("dist") / f"crm-{RELEASES[-1]}", ignore_errors=True)
    create_repository(WORK / "crm")
    release = check_out(WORK / "crm", RELEASES[-1])
    with Keyring.create() as keys:
        key = keys.new_key("Example Developer <developer@example.org>")
        print(
            f"made {WORK}/crm, a repository, and a key that is thrown away at the end", flush=True
        )
        environment = os.environ | {"GNUPGHOME": str(keys.home), "COUNTERSIGN_KEY": key}
        rehearse = ["rehearse", "--if-possible"]
        for step, *options in (["check"], rehearse, ["sign"], ["build", *sys.argv[1:]]):
            program = str(Path(sys.executable).with_name("countersign"))
            command = [program, step, "--release", str(release), *options]
            subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main()
