"""The demo's QAT and DEV, made from PRD by `countersign refresh`.

The machine that refreshes is this one: it reaches the clusters of all hosts, as libpq services, and
has the key of the masks. On PRD its role only reads, on QAT and DEV it makes databases.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from examples.product import check_out
from examples.telling import chapter, say, shown_lines, succeed, typed
from tests.hosts.cluster import DATA, IDENT, SOCKETS
from tests.promotion import RECEIPTS
from tests.sites import Site

READER = "CREATE ROLE refresh_reader LOGIN BYPASSRLS IN ROLE pg_read_all_data"
WRITER = (
    "CREATE ROLE refresh_writer LOGIN CREATEDB IN ROLE crm_owner, countersign, pg_signal_backend"
)
SERVICES = "pg_service.conf"
RULES = "crm/refresh.toml"
WRONG_WAY = 60
"""The exit code of a refresh whose target may not be written."""
UNCLASSIFIED = 66
"""That of a column without a class of masks."""

CUSTOMERS = """
SET ROLE crm_owner;
INSERT INTO crm.customer (name, email, phone, country, since)
SELECT given || ' ' || family, lower(given || '.' || family) || n || '@mail.example',
    '+43 1 555' || lpad(n::text, 4, '0'),
    (ARRAY['AT', 'CH', 'CZ', 'DE', 'FR', 'HU', 'IT', 'PL', 'SI', 'SK'])[1 + n % 10],
    date '2020-01-01' + n
FROM generate_series(1, 2000) AS n, LATERAL (SELECT
    (ARRAY['Anna', 'Boris', 'Carla', 'David', 'Elif', 'Franz', 'Greta'])[1 + n % 7],
    (ARRAY['Adler', 'Berger', 'Czerny', 'Dvorak', 'Egger'])[1 + n / 10 % 5]
) AS person (given, family);
INSERT INTO crm."order" (customer_id, ordered_at, total)
SELECT id, since + step * interval '9 days', 10 * step + id % 90
FROM crm.customer, generate_series(1, 3) AS step WHERE email LIKE '%@mail.example';
ANALYZE;
"""
"""What the application has written by the time of the first refresh."""
SIZES = """
SELECT format('%s customers, %s orders', count(*), (SELECT count(*) FROM crm."order"))
FROM crm.customer
"""
PEOPLE = """
SELECT format('%4s  %-14s  %-36s  %-16s  %s', id, name, email, phone, since)
FROM crm.customer WHERE country = 'AT' ORDER BY id LIMIT 4
"""
RAW_ADDRESSES = "SELECT count(*) FROM crm.customer WHERE email !~ '@example[.]com$'"


@dataclass(frozen=True, slots=True)
class Refreshing:
    """The machine that refreshes: in `folder` are its files, and the product's repository."""

    folder: Path
    dev: Site
    qat: Site
    prd: Site

    def tell(self) -> None:
        """Tell this part of the story."""
        self.set_up()
        self.copy_of_production()
        self.masked_part()
        self.wrong_way()
        self.new_column()

    def set_up(self) -> None:
        """Customers in PRD; a role on each cluster, and the services that refresh.toml names."""
        chapter("PRD is in use, and one more machine can read it, and replace QAT's and DEV's data")
        self.prd.sql(CUSTOMERS)
        say(f"The application on PRD has {self.prd.sql(SIZES)} by now.")
        services = (
            service("crm-prd", self.prd, READER, "crm"),
            service("qat", self.qat, WRITER, "postgres"),
            service("dev", self.dev, WRITER, "postgres"),
        )
        (self.folder / SERVICES).write_text("".join(services), encoding="utf-8")

    def copy_of_production(self) -> None:
        """QAT's database is made anew: everything that PRD has."""
        chapter("QAT becomes a copy of PRD: every row, every object, the ledger")
        self._succeed(
            *("refresh", "init", "-c", "qat.toml", "--mode", "copy", "--environment", "QAT"),
            *("--source", "service=crm-prd", "--target", "service=qat"),
            *("--database", "crm", "--owner", "crm_owner"),
        )
        self._succeed("refresh", "plan", "-c", "qat.toml")
        self._succeed("refresh", "run", "-c", "qat.toml", shows=False)
        say("What it did is in the report that it left:")
        self._succeed("refresh", "report", "-c", "qat.toml")
        say("The schema is what PRD's receipt has, and the ledger is PRD's:")
        *_, receipt = sorted(self.prd.host.at(RECEIPTS).glob("crm-1.0.0-*.json"))
        self.qat.host.copy_in(receipt, "/srv/prd.json")
        succeed(self.qat, ["countersign-install", "schema", "--diff", "/srv/prd.json"])
        succeed(self.qat, ["countersign-install", "history", "crm"])

    def masked_part(self) -> None:
        """DEV's database is made anew: some of the rows, and nobody's data."""
        chapter("DEV becomes a part of PRD, masked: the rules are in the product's repository")
        check_out(self.folder / "crm", "1.0.0")
        say("crm/refresh.toml, at the release that PRD has:")
        shown_lines((self.folder / RULES).read_text(encoding="utf-8"))
        self._succeed("refresh", "plan", "-c", RULES)
        self._succeed("refresh", "run", "-c", RULES)
        for site in (self.prd, self.dev):
            say(f"The first four customers in {site.host.name.upper()}:")
            shown_lines(site.sql(PEOPLE))
        if self.dev.sql(RAW_ADDRESSES) != "0":
            raise SystemExit("a raw address came to DEV")
        say(f"PRD has {self.prd.sql(SIZES)}; DEV {self.dev.sql(SIZES)}, and no raw address.")

    def wrong_way(self) -> None:
        """A refresh that would write to PRD."""
        chapter("The wrong way round: somebody names PRD's service as the target")
        self._succeed(
            *("refresh", "init", "-c", "wrong.toml", "--mode", "copy", "--environment", "QAT"),
            *("--source", "service=dev dbname=crm", "--target", "service=crm-prd"),
            *("--database", "crm", "--owner", "crm_owner"),
        )
        before = self.prd.state()
        self._refused(WRONG_WAY, "refresh", "run", "-c", "wrong.toml")
        if self.prd.state() != before:
            raise SystemExit("PRD is not as it was")
        say(f"PRD is as it was: {self.prd.sql(SIZES)}.")

    def new_column(self) -> None:
        """The next release adds a column, and refresh.toml does not know it."""
        chapter("1.1.0 adds a column: without a class of masks for it, the release is not signed")
        file = self.folder / RULES
        before = file.read_text(encoding="utf-8")
        check_out(self.folder / "crm", "1.1.0")
        rules = file.read_text(encoding="utf-8")
        file.write_text(before, encoding="utf-8")
        self._refused(UNCLASSIFIED, "check", "--release", "crm/release.toml")
        file.write_text(rules, encoding="utf-8")
        say("With the class, which the tag has, 1.1.0 was signed above.")

    def _succeed(self, *arguments: str, shows: bool = True) -> None:
        done = self._shown(*arguments, shows=shows)
        if done.returncode:
            raise SystemExit(f"this should have succeeded, and ended with {done.returncode}")

    def _refused(self, code: int, *arguments: str) -> None:
        done = self._shown(*arguments)
        if done.returncode != code:
            raise SystemExit(f"this should have ended with {code}, not with {done.returncode}")
        say(f"refused, with exit code {code}")

    def _shown(self, *arguments: str, shows: bool = True) -> CompletedProcess[str]:
        """Run `countersign`, and print it with what it said."""
        typed("refresh" if arguments[0] == "refresh" else "build", ["countersign", *arguments])
        done = subprocess.run(
            [Path(sys.executable).with_name("countersign"), *arguments],
            cwd=self.folder,
            env=os.environ | {"PGSERVICEFILE": str(self.folder / SERVICES)},
            capture_output=True,
            text=True,
            check=False,
        )
        if shows or done.returncode:
            shown_lines(done.stdout + done.stderr)
        return done


def service(name: str, site: Site, role: str, database: str) -> str:
    """Let this machine log in on a host's cluster as a new role; the entry of a service file."""
    login = role.split()[2]
    site.host.psql(role)
    site.host.write(DATA / "pg_ident.conf", f"{IDENT}countersign root {login}\n")
    site.host.psql("SELECT pg_reload_conf()")
    sockets = f"{site.host.root}{SOCKETS}"
    return f"[{name}]\nhost={sockets}\nuser={login}\ndbname={database}\n"
