"""What a policy makes of an install: who may change it, and scripts that their authors sign."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.acceptance import releases
from tests.developers import Developers, Files, identity
from tests.sites import Site, refused

pytestmark = pytest.mark.acceptance

POLICY = "/etc/countersign/policy.toml"


def change(site: Site, policy: str, **signatures: bytes) -> None:
    """Place a policy and its signatures, as configuration management would."""
    for old in site.host.at("/etc/countersign").glob("policy.toml*.asc"):
        old.unlink()
    site.host.write(POLICY, policy)
    for name, signature in signatures.items():
        site.host.write(f"{POLICY}.{name}.asc", signature.decode())


def test_a_policy_is_changed_only_by_those_whom_the_one_before_names(
    rpm_site: Site, developers: Developers, first: Path, second: Path
) -> None:
    # The package manager has no part in it: once is enough.
    site, old = rpm_site, developers.policy(QAT=1, PRD=2)
    assert site.install(first).returncode == 0
    new = old.replace("serial = 1", "serial = 2")

    change(site, old + "# edited\n")
    assert "has serial 1 like the accepted policy, but other content" in refused(site, second, 10)
    change(site, new)
    assert "requires 1 of role developer, found none" in refused(site, second, 10)
    change(site, new, mallory=developers.keys.sign(new.encode(), developers.mallory))
    assert developers.mallory in refused(site, second, 10)
    change(site, new, ada=developers.keys.sign(old.encode(), developers.ada))
    assert "the signature does not match" in refused(site, second, 10)

    change(site, new, ada=developers.keys.sign(new.encode(), developers.ada))
    assert site.installer("check").returncode == 0
    change(site, old)
    assert "there is no way back" in refused(site, second, 10)

    change(site, new)  # accepted already: it needs its signature no more
    assert site.upgrade(second).returncode == 0
    assert site.state().package == "1.1-1"


def signed_by(developers: Developers, key: str, files: Files) -> Files:
    """The files with a signature beside each script."""
    scripts = {path: text for path, text in files.items() if path.startswith("sql/")}
    signatures = {
        f"{path}.asc": developers.keys.sign(text.encode() if isinstance(text, str) else text, key)
        for path, text in scripts.items()
    }
    return {**files, **signatures}


def test_scripts_have_to_be_signed_by_authors_where_the_policy_says_so(
    rpm_site: Site, developers: Developers
) -> None:
    site, author = rpm_site, identity("Grace", "author", developers.grace)
    policy = developers.policy(QAT=1).replace(
        identity("Grace", "developer", developers.grace), author
    )
    site.trust(
        policy.replace("[require.QAT]", "[require.QAT]\nsigned_scripts = true"),
        developers.keyring(),
    )
    draft = releases.first(developers)
    by_mallory = signed_by(developers, developers.mallory, draft.files)
    by_grace = signed_by(developers, developers.grace, draft.files)

    words = refused(site, developers.package(replace(draft, label="-plain")), 20)
    assert "3 scripts are not signed as signed_scripts requires" in words
    assert "sql/0001_customers.sql: no author has signed it" in words
    foreign = replace(draft, label="-foreign", files=by_mallory)
    assert "sql/0002_orders.sql: its author's signature" in refused(
        site, developers.package(foreign), 20
    )

    done = site.install(developers.package(replace(draft, label="-authored", files=by_grace)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.state().objects == "customer orders"
