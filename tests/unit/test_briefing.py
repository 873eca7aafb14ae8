"""What a customer reads before signing: everything that was lost or changed, and not too much."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer.approval import Approval
from installer.fingerprint import LAYERS, changes, schema_of
from installer.manifest import Accepted, Application, Content, Database, Manifest, Script, Source
from installer.receipt import (
    Lock,
    MeasuredApplication,
    MeasuredDatabase,
    Receipt,
    Retry,
    ScriptReceipt,
)
from installer.tree import Digest
from packager import schema_words
from packager.approval import Case, Witness
from packager.briefing import briefing, doubts
from packager.schema_words import locks, number, schema_changes
from packager.signing import Signer

Row = tuple[str, str, str, str]
D = Digest("0" * 64)

CUSTOMER: list[Row] = [
    ("structure", "table", "crm.customer", "(id, name)"),
    ("structure", "column", "crm.customer.id", "integer NOT NULL"),
    ("structure", "column", "crm.customer.name", "text"),
    ("structure", "constraint", "crm.customer.customer_pkey", "PRIMARY KEY (id)"),
    (
        "structure",
        "index",
        "crm.by_name",
        "CREATE INDEX by_name ON crm.customer USING btree (name)",
    ),
    ("owners", "table", "crm.customer", "crm_owner"),
]
INVOICE: list[Row] = [
    ("structure", "table", 'crm."order.item"', "(id, body, paid)"),
    ("structure", "column", 'crm."order.item".id', "bigint NOT NULL"),
    ("structure", "column", 'crm."order.item"."a.b ""c"""', "text"),
    ("structure", "column", 'crm."order.item".paid', "boolean"),
    ("structure", "constraint", 'crm."order.item".item_pkey', "PRIMARY KEY (id)"),
    ("structure", "constraint", 'crm."order.item".item_check', "CHECK (id > 0)"),
    (
        "structure",
        "index",
        "crm.by_paid",
        'CREATE UNIQUE INDEX by_paid ON ONLY crm."order.item" USING btree (paid)',
    ),
    (
        "structure",
        "sequence",
        "crm.item_id_seq",
        'AS bigint START 1 INCREMENT 1 OWNED BY crm."order.item".id',
    ),
    ("structure", "policy", 'crm."order.item".own', "PERMISSIVE FOR ALL TO PUBLIC"),
    ("owners", "table", 'crm."order.item"', "crm_owner"),
    ("owners", "sequence", "crm.item_id_seq", "crm_owner"),
    ("comments", "column", 'crm."order.item".id', "what it is known by"),
]
COUNTED = "(3 columns, 2 constraints, 1 policy, 1 index, 1 sequence"


def told(before: list[Row], after: list[Row]) -> list[str]:
    return list(schema_changes(schema_of(15, before), schema_of(15, after)))


def without(rows: list[Row], *names: str) -> list[Row]:
    return [row for row in rows if row[2] not in names]


def changed(rows: list[Row], name: str, definition: str, layer: str = "structure") -> list[Row]:
    return [(*r[:3], definition) if (r[0], r[2]) == (layer, name) else r for r in rows]


def test_a_new_table_is_one_line() -> None:
    line, counts = told(CUSTOMER, CUSTOMER + INVOICE)

    assert line == f'created table crm."order.item" {COUNTED}, 1 comment; owner crm_owner)'
    assert counts == (
        "in all: set comment on 1 column, owner of 1 sequence, owner of 1 table; "
        "created 3 columns, 2 constraints, 1 index, 1 policy, 1 sequence, 1 table"
    )


def test_a_dropped_table_is_one_line_and_says_that_data_may_be_lost() -> None:
    first, counts = told(CUSTOMER + INVOICE, CUSTOMER)

    assert first == f'dropped table crm."order.item" {COUNTED}): its data may be lost'
    assert "dropped 3 columns, 2 constraints, 1 index, 1 policy, 1 sequence, 1 table" in counts


def test_who_may_use_a_new_object_is_told_with_it() -> None:
    granted: list[Row] = [
        ("privileges", "table", "crm.customer", "crm_app=arwd/crm_owner"),
        ("privileges", "column", "crm.customer.name", "report=r/crm_owner"),
    ]

    assert told([], CUSTOMER + granted)[:3] == [
        "created table crm.customer (2 columns, 1 constraint, 1 index; owner crm_owner)",
        "  privileges of column crm.customer.name: report=r/crm_owner",
        "  privileges: crm_app=arwd/crm_owner",
    ]


def test_a_part_that_another_role_owns_has_a_line_of_its_own() -> None:
    other = changed(INVOICE, "crm.item_id_seq", "somebody", "owners")

    assert told([], other)[:2] == [
        "set owner of sequence crm.item_id_seq",
        "  is now somebody",
    ]


def test_a_column_that_was_added_is_told_with_its_type_and_its_table_is_not() -> None:
    after = changed(CUSTOMER, "crm.customer", "(id, name, total)")
    after.append(("structure", "column", "crm.customer.total", "numeric NOT NULL"))

    assert told(CUSTOMER, after) == [
        "added column crm.customer.total: numeric NOT NULL",
        "in all: changed 1 table; added 1 column",
    ]


def test_a_column_that_was_dropped_is_told_first_and_that_data_may_be_lost() -> None:
    after = without(changed(CUSTOMER, "crm.customer", "(id)"), "crm.customer.name", "crm.by_name")

    assert told(CUSTOMER, after) == [
        "dropped column crm.customer.name: its data may be lost",
        "  was    text",
        "dropped index crm.by_name",
        "  was    CREATE INDEX by_name ON crm.customer USING btree (name)",
        "in all: dropped 1 column, 1 index; changed 1 table",
    ]


@pytest.mark.parametrize(
    "definition",
    ["(id, total, name)", "(id, name, total) WITH (fillfactor=70)", "UNLOGGED (id, name, total)"],
)
def test_a_table_that_is_also_otherwise_different_is_told(definition: str) -> None:
    after = changed(CUSTOMER, "crm.customer", definition)
    after.append(("structure", "column", "crm.customer.total", "numeric"))

    assert told(CUSTOMER, after)[:3] == [
        "changed table crm.customer",
        "  was    (id, name)",
        f"  is now {definition}",
    ]


@pytest.mark.parametrize("kind", ["column", "constraint", "trigger", "rule", "policy"])
def test_a_part_of_a_table_that_changed_is_told_with_both_definitions(kind: str) -> None:
    before: list[Row] = [*CUSTOMER, ("structure", kind, "crm.customer.x", "one")]

    assert told(before, changed(before, "crm.customer.x", "two\n  lines")) == [
        f"changed {kind} crm.customer.x",
        "  was    one",
        "  is now two lines",
        f"in all: changed 1 {kind}",
    ]


def test_the_column_of_a_view_holds_no_data() -> None:
    view: list[Row] = [
        ("structure", "view", "crm.recent", "(id) AS SELECT 1"),
        ("structure", "column", "crm.recent.id", "integer"),
    ]

    assert told(view, view[:1])[0] == "dropped column crm.recent.id"


def test_privileges_owners_and_comments_of_what_was_there_are_told_as_such() -> None:
    before: list[Row] = [*CUSTOMER, ("comments", "table", "crm.customer", "who buys")]
    after = changed(without(before, "crm.customer") + before[:1], "crm.customer", "(id, name)")
    after += [
        ("owners", "table", "crm.customer", "postgres"),
        ("privileges", "table", "crm.customer", "PUBLIC=r/postgres"),
        ("privileges", "default privileges", "crm_owner ON TABLES", "app=r/crm_owner"),
    ]

    assert told(before, after)[:-1] == [
        "removed comment on table crm.customer",
        "  was    who buys",
        "changed owner of table crm.customer",
        "  was    crm_owner",
        "  is now postgres",
        "set default privileges crm_owner ON TABLES",
        "  is now app=r/crm_owner",
        "set privileges of table crm.customer",
        "  is now PUBLIC=r/postgres",
    ]
    assert told(before, after)[-1] == (
        "in all: removed comment on 1 table; changed owner of 1 table; "
        "set 1 default privileges, privileges of 1 table"
    )


def test_what_is_not_recognised_is_listed_as_it_is() -> None:
    strange: list[Row] = [
        ("structure", "index", "crm.odd", "an index of some other form"),
        ("structure", "column", "crm.gone.id", "integer"),
        ("structure", "widget\x1b[1m", "crm.w", "…"),
        ("comments", "index", "crm.customer_pkey", "kept by a constraint"),
    ]

    assert told([], strange) == [
        "set comment on index crm.customer_pkey",
        "  is now kept by a constraint",
        "created column crm.gone.id",
        "created index crm.odd",
        "created widget\\x1b[1m crm.w",
        "in all: set comment on 1 index; created 1 column, 1 index, 1 widget\\x1b[1m",
    ]


def test_lost_changed_added_new_is_the_order_and_new_objects_are_the_first_to_be_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before: list[Row] = [
        *CUSTOMER,
        ("structure", "function", "crm.f()", "one"),
        ("structure", "table", "crm.z", "(id)"),
        ("structure", "view", "crm.a", "AS SELECT 1"),
    ]
    after = changed(without(before, "crm.a", "crm.z"), "crm.f()", "two")
    after.append(("structure", "trigger", "crm.customer.t", "CREATE TRIGGER t"))
    after += [("structure", "table", f"crm.new{n}", "") for n in range(5)]

    lines = told(before, after)
    assert lines[:7] == [
        "dropped table crm.z: its data may be lost",
        "dropped view crm.a",
        "changed function crm.f()",
        "  was    one",
        "  is now two",
        "added trigger crm.customer.t: CREATE TRIGGER t",
        "created table crm.new0",
    ]
    monkeypatch.setattr(schema_words, "MOST_LINES", 7)
    assert told(before, after) == [
        *lines[:7],
        "and 4 more lines; the receipt has all",
        "in all: dropped 1 table, 1 view; changed 1 function; added 1 trigger; created 5 tables",
    ]
    schemas = schema_of(15, before), schema_of(15, after)
    assert "and 4 more lines; rehearsal.json has all" in schema_changes(*schemas, "rehearsal.json")
    assert list(schema_changes(*schemas, None)) == lines  # which is what that has


def test_nothing_is_called_nothing() -> None:
    assert told(CUSTOMER, CUSTOMER) == ["nothing"]


ROWS = st.lists(
    st.tuples(
        st.sampled_from(LAYERS),
        st.sampled_from(["table", "view", "column", "index", "sequence", "constraint"]),
        st.sampled_from(["s.t", "s.v", "s.t.c", 's."v.w".c', "s.v.c", "s.i"]),
        st.sampled_from(
            [
                "",
                "(c)",
                "(c, d)",
                "CREATE INDEX i ON s.t USING x",
                "1 OWNED BY s.t.c",
                "PRIMARY KEY",
            ]
        ),
    ),
    unique_by=lambda row: row[:3],
)


@given(ROWS, ROWS)
def test_the_last_line_counts_everything(before: list[Row], after: list[Row]) -> None:
    apart = changes(schema_of(15, before), schema_of(15, after))

    *lines, counts = told(before, after)

    assert sum(map(int, re.findall(r"\b\d+ (?=[a-z])", counts))) == len(apart)
    assert bool(lines) == bool(apart)


@pytest.mark.parametrize(
    "count, noun, words",
    [
        (1, "column", "1 column"),
        (0, "row", "0 rows"),
        (2, "index", "2 indexes"),
        (2, "policy", "2 policies"),
        (2, "operator class", "2 operator classes"),
        (3, "statistics", "3 statistics"),
    ],
)
def test_numbers_have_their_grammar(count: int, noun: str, words: str) -> None:
    assert number(count, noun) == words


def measured(**other: object) -> MeasuredDatabase:
    made = MeasuredDatabase(
        name="crm",
        system="1",
        version="15.8",
        ledger=D,
        milliseconds=90,
        before=schema_of(15, CUSTOMER),
        after=schema_of(15, CUSTOMER),
        scripts=(ScriptReceipt("sql/0002.sql", D, 5, 1),),
        locks=(),
        created=(),
        retries=(Retry("crm.customer was locked", 700),),
    )
    return replace(made, **other)  # type: ignore[arg-type]  # tests name the fields


def locked(**modes: str) -> list[str]:
    held = tuple(Lock(f"crm.{name}", mode) for name, mode in sorted(modes.items()))
    return [line.rpartition(": ")[0] for line in locks(measured(locks=held))]


def test_locks_are_told_the_strongest_first_and_an_index_only_if_its_table_does_not_say_it() -> (
    None
):
    exclusive, share = "AccessExclusiveLock", "AccessShareLock"

    assert locked(customer=exclusive, by_name=exclusive, customer_pkey=share, zebra=share) == [
        "crm.customer: ACCESS EXCLUSIVE",
        "crm.zebra: ACCESS SHARE",
    ]
    assert locked(customer=share, by_name=exclusive, customer_pkey="RowShareLock") == [
        "crm.by_name: ACCESS EXCLUSIVE",
        "crm.customer_pkey: ROW SHARE",
        "crm.customer: ACCESS SHARE",
    ]
    assert locked(by_name=share) == ["crm.by_name: ACCESS SHARE"]


def test_a_lock_that_is_not_known_hides_nothing_and_is_not_hidden() -> None:
    assert locked(customer="SIReadLock", by_name="ShareLock") == [
        "crm.customer: SIReadLock",
        "crm.by_name: SHARE",
    ]
    assert locked(customer="AccessExclusiveLock", by_name="odd") == [
        "crm.by_name: odd",
        "crm.customer: ACCESS EXCLUSIVE",
    ]


def case(**other: object) -> Case:
    application = Application("/opt/crm", {}, ())
    source = Source("git", "v1.1.0", "f" * 40, 1769900000, None)
    scripts = (Script("sql/0001.sql", D, 1, (1,)), Script("sql/0002.sql", D, 1, (1,)))
    manifest = Manifest(
        digest=D,
        product="crm",
        version="1.1.0",
        sequence=2,
        summary="Orders",
        source=source,
        content=Content("xz", D, 1),
        application=application,
        database=Database("crm", scripts, (), ()),
    )
    receipt = Receipt(
        digest=D,
        product="crm",
        version="1.1.0",
        sequence=2,
        manifest=D,
        package="crm-1.1.0-1.noarch",
        environment="QAT",
        host="qat1.example.org",
        installer="0.1.0",
        started=1769900000,
        finished=1769900007,
        outcome="installed",
        failure=None,
        database=measured(),
        application=MeasuredApplication("/opt/crm", D),
    )
    approval = Approval(D, "crm", "1.1.0", 2, D, D, "PRD", 1769900000, 1769986400)
    known, unknown = Witness("A" * 40, "Ada <ada@example.org>"), Witness("B" * 40, None)
    made = Case(manifest, (known,), receipt, (unknown,), approval, {})
    return replace(made, **other)  # type: ignore[arg-type]  # tests name the fields


def words(told_case: Case) -> str:
    return "\n".join(
        line for section in briefing(told_case) for line in (section.title, *section.lines)
    )


def test_the_customer_is_told_what_where_and_how_long() -> None:
    said = words(case(signed=(Signer("C" * 40, "The Customer"),)))

    for line in (
        "You approve crm 1.1.0 for PRD",
        "good from 2026-01-31T22:53:20Z",
        f"Ada <ada@example.org> {'A' * 40}",
        "It was installed on qat1.example.org in QAT",
        "until     2026-01-31T22:53:27Z, 7 s in all",
        f"  not verified: a key that is not known here {'B' * 40}",
        "Database crm: 1 of the release's 2 scripts ran, in 0.090 s",
        "sql/0002.sql: 0.005 s, 1 row",
        "0.700 s: crm.customer was locked",
        "Application /opt/crm",
        "0 files",
        f"The Customer {'C' * 40}",
    ):
        assert line in said.splitlines()


def test_the_customer_reads_of_accepted_changes_before_all_that_was_measured() -> None:
    plain = case()
    database = plain.manifest.database
    assert database
    accept = (Accepted("sql/0001.sql", "edited", (Digest("3f" * 32),), "a comment only"),)
    manifest = replace(plain.manifest, database=replace(database, accept=accept))

    said = words(case(manifest=manifest)).splitlines()

    title = said.index("Released scripts were changed, which this release accepts")
    assert said[title + 1] == (
        "sql/0001.sql: edited after it was released: applied as 3f3f3f3f3f3f3f3f…, "
        "now 0000000000000000…: a comment only"
    )
    assert title < said.index("Database crm: 1 of the release's 2 scripts ran, in 0.090 s")
    assert "Released scripts were changed" not in words(plain)


def test_a_key_that_is_not_known_is_a_doubt() -> None:
    (doubt,) = doubts(case())

    assert doubt.startswith(f"the receipt is signed with {'B' * 40}, which is not known here")
    assert doubt.endswith("decided by the policy of PRD")
