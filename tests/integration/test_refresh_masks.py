"""Masks on a real server: their types, NULLs, domains, uniqueness, and where the key shows."""

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from installer.quoting import literal, quoted
from installer.session import ServerError, Session
from refresher.catalog import read_source
from refresher.classification import require_classified
from refresher.masks import LARGE, expression
from refresher.model import Column, Table, TableName
from refresher.rules import Rule
from refresher.suggestions import suggestions
from tests.cluster import Cluster

pytestmark = pytest.mark.integration

KEY, OTHER_KEY = "0f" * 32, "a1" * 32
MANY = 200_000
BY_CHANCE = {"city", "name"}
"""Classes that may well choose one word for one value under two keys."""


def conninfo(cluster: Cluster, key: str = KEY, *, name: str = "postgres") -> str:
    """A connection as a worker's: read only, and the key in its options."""
    options = f"-c countersign.mask_key={key} -c default_transaction_read_only=on -c jit=off"
    return f"{cluster.conninfo(name, 'postgres')} options='{options}'"


@pytest.fixture
def source(cluster: Cluster) -> Iterator[Session]:
    with Session.open(conninfo(cluster)) as session:
        yield session


def column(type_: str, name: str = "v", **given: bool) -> Column:
    base, _, length = type_.partition("(")
    made = Column(
        name,
        type_,
        base,
        int(length[:-1]) if length and base.startswith("char") else None,
        *[False] * 4,
    )
    return replace(made, **given)  # type: ignore[arg-type]  # flags of a column


def of_bytes(size: int, name: str = "many") -> Table:
    """A table as the catalog tells it, of that size; its statistics are those of public.`name`."""
    named = TableName("public", name)
    return Table(named, (), 0, size, (), None, is_partitioned=False, parents=())


SIZES = pytest.mark.parametrize("table", [of_bytes(0), of_bytes(LARGE)], ids=["small", "large"])


def masked(
    session: Session, of: Column, rule: Rule, values: str, table: Table | None = None
) -> list[object]:
    """The masks of `values`, which is SQL for the rows of a table with the columns v and who."""
    query = f"SELECT {expression(of, rule, table)} FROM ({values}) AS t ({quoted(of.name)}, who)"
    return [row[0] for row in session.rows(query)]


def one(session: Session, of: Column, rule: Rule, value: str, table: Table | None = None) -> object:
    return masked(session, of, rule, f"SELECT {value}::{of.type}, 7", table)[0]


TEXTS = [
    (type_, f"'{text}'")
    for type_, text in [
        ("text", "Ann Müller, 12"),
        ("character varying(80)", "ann@corp.example"),
        ("character(60)", "ann"),
    ]
]
WHOLE = [("smallint", "'-32768'"), ("integer", "42"), ("bigint", "9223372036854775807")]
DATES = [
    ("date", "'2000-02-29'"),
    ("timestamp without time zone", "'2000-02-29 12:30'"),
    ("timestamp with time zone", "'2000-02-29 12:30+02'"),
]
JSON = Rule("json", paths=(("mail", Rule("email", "d")), ("tags[*]", Rule("hash", "d"))))
DOCUMENT = """'{"mail": "ann@corp.example", "tags": ["a", "b"], "more": 1}'"""
ELSEWHERE = [("numeric(8,2)", "12.5"), ("boolean", "true"), ("inet", "'10.0.0.1'")]
ELSEWHERE += [("integer[]", "'{1,2}'"), ("uuid", "gen_random_uuid()"), ("bytea", "'x'")]
EVERY = [*TEXTS, *WHOLE, *DATES, *ELSEWHERE, ("jsonb", DOCUMENT), ("json", DOCUMENT)]
KEYED = [
    *[
        (Rule(kind, "d"), *value)
        for value in TEXTS
        for kind in ("hash", "email", "name", "address", "city", "phone", "text")
    ],
    *[(Rule("name", "d", part=part), *TEXTS[0]) for part in ("given", "family")],
    *[
        (Rule("hash", "d"), *value)
        for value in (("uuid", "'0123456789abcdef0123456789abcdef'"), ("bytea", "'x'"))
    ],
    *[(Rule("integer", "d"), *value) for value in WHOLE],
    *[(Rule("date", "d", by="who"), *value) for value in DATES],
    (JSON, "jsonb", DOCUMENT),
    (JSON, "json", DOCUMENT),
]
UNKEYED = [
    *[(Rule("keep"), *value) for value in EVERY],
    *[(Rule("null"), *value) for value in EVERY],
    *[(Rule("constant", value="7"), *value) for value in (*TEXTS, *WHOLE, *ELSEWHERE[:1])],
    (Rule("constant", value="2001-01-01"), *DATES[0]),
    (Rule("sql", sql="left(v, 1) || '.' -- the initial"), *TEXTS[0]),
]


@pytest.mark.parametrize("rule, type_, value", [*KEYED, *UNKEYED])
def test_a_mask_has_the_type_of_its_column_and_null_stays_null(
    source: Session, rule: Rule, type_: str, value: str
) -> None:
    found = expression(column(type_), rule)
    rows = source.rows(
        f"SELECT {found} IS NULL, pg_typeof({found})::text, v IS NULL"
        f" FROM (VALUES ({value}::{type_}, 7), (NULL, 7)) AS t (v, who)"
    )
    base = type_.partition("(")[0]
    assert {row[1] for row in rows} == {base}
    assert [row[0] for row in rows] == [rule.kind == "null", True]


@pytest.mark.parametrize("rule, type_, value", [k for k in KEYED if k[0].kind not in BY_CHANCE])
def test_a_mask_is_the_same_under_a_key_and_another_under_another(
    cluster: Cluster, source: Session, rule: Rule, type_: str, value: str
) -> None:
    values = f"SELECT {value}::{type_}, 7 + i FROM generate_series(1, 20) AS i"
    first = masked(source, column(type_), rule, values)
    assert masked(source, column(type_), rule, values) == first
    with Session.open(conninfo(cluster, OTHER_KEY)) as session:
        assert masked(session, column(type_), rule, values) != first
    assert first[0] != source.one(f"SELECT {value}::{type_}")


@pytest.mark.parametrize("kind", ["hash", "email", "name", "address", "city", "phone", "text"])
def test_domains_and_keys_tell_masks_apart(cluster: Cluster, source: Session, kind: str) -> None:
    values = "SELECT 'value ' || i, i FROM generate_series(1, 200) AS i"
    first = masked(source, column("text"), Rule(kind, "customer.a"), values)
    in_varchar = masked(source, column("character varying(80)"), Rule(kind, "customer.a"), values)
    elsewhere = masked(source, column("text"), Rule(kind, "customer.b"), values)
    with Session.open(conninfo(cluster, OTHER_KEY)) as session:
        other_key = masked(session, column("text"), Rule(kind, "customer.a"), values)
    assert in_varchar == first
    for other in (elsewhere, other_key):
        same = sum(a == b for a, b in zip(first, other, strict=True))
        assert same < 20  # of 200; a list of 64 words has 3 by chance


def test_a_hash_is_the_hmac_that_python_computes(source: Session) -> None:
    found = one(source, column("text"), Rule("hash", "c.mail", length=64), "'Ann Müller'")
    message = "c.mail\0hash\0Ann Müller".encode()
    assert found == hmac.new(bytes.fromhex(KEY), message, hashlib.sha256).hexdigest()


def derived(domain: str, purpose: str, message: bytes, key: str = KEY) -> bytes:
    """SHA-256 of a message behind a block with the key that a domain has for a purpose."""
    its_key = hmac.new(bytes.fromhex(key), f"{domain}\0{purpose}\0".encode(), hashlib.sha256)
    return hashlib.sha256(its_key.digest() + bytes(32) + message).digest()


def test_the_digits_of_an_email_and_a_phone_are_those_that_python_computes(source: Session) -> None:
    mail = str(one(source, column("text"), Rule("email", "c.mail"), "'Ann Müller'"))
    phone = str(one(source, column("text"), Rule("phone", "c.phone"), "'Ann Müller'"))
    raw = "Ann Müller".encode()
    assert mail.endswith(f".{derived('c.mail', 'email', raw)[:8].hex()}@example.com")
    digits = derived("c.phone", "phone", raw)[:6].hex()
    assert phone == "+999" + digits.translate(str.maketrans("abcdef", "012345"))


def permuted(number: int, bits: int) -> int:
    """The permutation of the domain d, as numbers of Python's."""

    def random(turn: int, half: int) -> bytes:
        return derived("d", "integer", (turn << 40 | half).to_bytes(8, "big"))

    def first(turn: int, half: int, bits: int) -> int:
        return int.from_bytes(random(turn, half)[:4], "big") % (1 << bits)

    def entry(turn: int, half: int, bits: int) -> int:
        at = 2 * (half % 16)
        return int.from_bytes(random(turn, half // 16)[at : at + 2], "big") % (1 << bits)

    def line(turn: int, half: int, bits: int) -> int:
        return (half * first(turn, 0, 31) + first(turn, 1, 31)) % (2**32 + 15) % (1 << bits)

    high, below = (bits + 1) // 2, number % (1 << bits)
    low = bits - high
    if bits <= 31:
        upper, lower = divmod(below * (first(0, 0, bits) | 1) % (1 << bits), 1 << low)
        lower ^= entry(1, upper, low)
        upper ^= entry(2, lower, high)
        below = (lower * (1 << high) + upper) * (first(3, 0, bits) | 1) % (1 << bits)
    else:
        left, right = divmod(below, 1 << high)
        left ^= line(0, right, low)
        right ^= first(1, left, high)
        left ^= first(2, right, low)
        right ^= line(3, left, high)
        below = left * (1 << high) + right
    return below - ((1 << bits) if number < 0 else 0)


@SIZES
@pytest.mark.parametrize("bits", [8, 9, 15, 16, 30, 31, 32, 33, 62, 63])
def test_a_number_is_permuted_as_python_permutes_it(
    source: Session, bits: int, table: Table
) -> None:
    step = 2**bits // 40 + 1
    numbers = sorted({-(2**bits), -1, 0, 1, 2**bits - 1, *range(-(2**bits), 2**bits, step)})
    values = f"SELECT n::bigint, 1 FROM unnest('{{{','.join(map(str, numbers))}}}'::bigint[]) AS n"
    masks = masked(source, column("bigint"), Rule("integer", "d", bits=bits), values, table)
    assert masks == [permuted(number, bits) for number in numbers]


def test_a_hash_of_a_uuid_is_a_uuid_of_version_8(source: Session) -> None:
    found = str(one(source, column("uuid"), Rule("hash", "c.id"), "gen_random_uuid()"))
    assert (found[14], found[19]) == ("8", "8")


def test_hashes_emails_and_numbers_stay_unique_over_many_rows(source: Session) -> None:
    values = f"SELECT {{}}, i FROM generate_series(1, {MANY}) AS i"
    for of, rule, value in [
        (column("text"), Rule("hash", "d", length=16), "i::text"),
        (column("text"), Rule("email", "d"), "i::text"),
        (column("integer"), Rule("integer", "d"), "i"),
        (column("bigint"), Rule("integer", "d"), "i::bigint"),
    ]:
        masks = masked(source, of, rule, values.format(value), of_bytes(LARGE))
        assert len(set(masks)) == MANY


@SIZES
def test_the_numbers_of_smallint_are_permuted_and_keep_their_sign(
    source: Session, table: Table
) -> None:
    values = "SELECT i::smallint, i FROM generate_series(-32768, 32767) AS i"
    masks = masked(source, column("smallint"), Rule("integer", "d"), values, table)
    assert sorted(masks) == list(range(-32768, 32768))  # type: ignore[type-var]  # integers
    assert all((mask < 0) == (i < 0) for i, mask in enumerate(masks, -32768))  # type: ignore[operator]
    assert sum(mask == i for i, mask in enumerate(masks, -32768)) < 20


@SIZES
@pytest.mark.parametrize("bits", [8, 9, 15, 31, 63])
def test_the_ends_of_a_range_stay_within_it(source: Session, bits: int, table: Table) -> None:
    ends = [0, 1, 2**bits - 2, 2**bits - 1, -1, -(2**bits)]
    values = " UNION ALL ".join(f"SELECT '{end}'::bigint, 1" for end in ends)
    masks = masked(source, column("bigint"), Rule("integer", "d", bits=bits), values, table)
    assert len(set(masks)) == len(ends)
    assert all(-(2**bits) <= mask < 2**bits for mask in masks)


@SIZES
@pytest.mark.parametrize("number", ["987654321987", "-987654321987", "9123456789123456789"])
@pytest.mark.parametrize("bits", [31, 32])
def test_a_number_beyond_the_bits_is_refused_and_not_shown(
    source: Session, number: str, bits: int, table: Table
) -> None:
    with pytest.raises(ServerError, match=f"a number has more than {bits} bits") as refused:
        one(source, column("bigint"), Rule("integer", "d", bits=bits), f"'{number}'", table)
    assert number.strip("-") not in str(refused.value)


MASKED_TEXTS = ("hash", "email", "name", "address", "city", "phone", "text")
MANY_ROWS = """
CREATE TABLE {name} AS SELECT
    CASE i % 7 WHEN 0 THEN '' WHEN 1 THEN NULL WHEN 2 THEN 'Ann "Ä", {{B}} \\ ' ELSE 'u' || i END
        AS {column}, i AS who FROM generate_series(1, 700) AS i;
ALTER TABLE {name} ALTER {column} TYPE {type};
ANALYZE {name};
"""


@pytest.mark.parametrize("type_", ["text", "varchar(80)", "char(80)", "bpchar", "public.citext"])
def test_a_large_table_has_the_masks_of_a_small_one(
    cluster: Cluster, source: Session, type_: str
) -> None:
    cluster.psql("CREATE EXTENSION IF NOT EXISTS citext; DROP TABLE IF EXISTS many")
    cluster.psql(MANY_ROWS.format(name="many", column="v", type=type_))
    common = "SELECT cardinality(most_common_vals::text::text[]) FROM pg_stats"
    assert source.one(f"{common} WHERE tablename = 'many' AND attname = 'v'") == 2
    exactly = cluster.psql(
        "SELECT format_type(atttypid, atttypmod), atttypid::regtype FROM pg_attribute"
        " WHERE attrelid = 'many'::regclass AND attname = 'v'"
    )
    type_, base = exactly.split("|")
    of = replace(column(type_), base="public.citext" if "citext" in base else base)
    for kind in MASKED_TEXTS:
        small, large = (
            masked(source, of, Rule(kind, "d"), "SELECT v, who FROM many", of_bytes(size))
            for size in (LARGE - 1, LARGE)
        )
        assert large == small
        assert large.count(None) == 100
        assert len(set(large)) > 20
    cluster.psql("DROP TABLE many")


@pytest.mark.parametrize("type_", ["uuid", "bytea", "text", "integer"])
def test_a_large_table_without_statistics_is_masked_alike(source: Session, type_: str) -> None:
    rule = Rule("integer" if type_ == "integer" else "hash", "d")
    value = {"uuid": "md5(i::text)::uuid", "bytea": "'x'::bytea"}.get(type_, f"i::{type_}")
    values = f"SELECT {value}, i FROM generate_series(1, 50) AS i"
    small, large = (
        masked(source, column(type_), rule, values, of_bytes(size)) for size in (0, LARGE)
    )
    assert large == small


def test_foreign_keys_match_after_both_sides_were_masked(source: Session) -> None:
    wide = masked(
        source,
        column("bigint"),
        Rule("integer", "c.id", bits=31),
        "SELECT i::bigint, i FROM generate_series(1, 500) AS i",
    )
    narrow = masked(
        source,
        column("integer"),
        Rule("integer", "c.id"),
        "SELECT i, i FROM generate_series(1, 500) AS i",
        of_bytes(LARGE),
    )
    assert wide == narrow


def test_dates_of_a_person_are_shifted_alike_and_never_stay(source: Session) -> None:
    rule = Rule("date", "c.id", by="who", days=30)
    values = (
        "SELECT date '2020-01-01' + n, i"
        " FROM generate_series(1, 300) AS i, (VALUES (0), (9)) AS d (n) ORDER BY i, n"
    )
    masks = masked(source, column("date"), rule, values)
    shifts = [(masks[i] - masks[0]).days for i in range(0, 600, 2)]  # type: ignore[operator]
    assert all((masks[i + 1] - masks[i]).days == 9 for i in range(0, 600, 2))  # type: ignore[operator]
    start = source.one("SELECT date '2020-01-01'")
    days = {(mask - start).days for mask in masks[::2]}
    assert 0 not in days
    assert (min(days), max(days)) == (-30, 30)
    assert len(set(shifts)) > 50


def test_a_date_of_nobody_is_shifted_too(source: Session) -> None:
    values = "SELECT date '2020-01-01', NULL::integer"
    (mask,) = masked(source, column("date"), Rule("date", "c.id", by="who"), values)
    assert mask not in {None, source.one("SELECT date '2020-01-01'")}


def test_text_keeps_its_shape_and_no_letter_beyond_ascii(source: Session) -> None:
    found = str(one(source, column("text"), Rule("text", "d"), "'DE12 3456-Müller ß'"))
    shape = [
        "A9"[c.isdigit()] if c.isupper() or c.isdigit() else "a" if c.isalpha() else c
        for c in found
    ]
    assert "".join(shape) == "AA99 9999-Aaaaaa a"
    assert found.isascii()
    assert one(source, column("text"), Rule("text", "d"), "''") == ""


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80))
def test_any_text_keeps_its_length_and_its_ascii_punctuation(source: Session, text: str) -> None:
    found = str(one(source, column("text"), Rule("text", "d"), literal(text)))
    assert len(found) == len(text)
    for old, new in zip(text, found, strict=True):
        assert (
            new == old if old.isascii() and not old.isalnum() and old != "\x7f" else new.isalnum()
        )


def test_equal_citext_has_equal_masks(cluster: Cluster) -> None:
    cluster.psql("CREATE EXTENSION IF NOT EXISTS citext")
    of = replace(column("public.citext"), base="public.citext")
    with Session.open(conninfo(cluster)) as session:
        assert one(session, of, Rule("hash", "d"), "'Ann'") == one(
            session, of, Rule("hash", "d"), "'aNN'"
        )


def test_what_no_path_names_leaves_a_document_only_if_it_is_kept(source: Session) -> None:
    text = """'{"a": {"mail": "x@y", "z": 1}, "l": [{"n": "Ann", "k": 2}, "raw", null],
        "o": 3, "n": null}'"""
    paths = (
        ("a.mail", Rule("null")),
        ("l[*].n", Rule("constant", value="X")),
        ("n", Rule("hash", "d")),
        ("o", Rule("keep")),
    )
    dropped = one(source, column("jsonb"), Rule("json", paths=paths), text)
    kept = one(source, column("jsonb"), Rule("json", paths=paths, rest="keep"), text)
    assert dropped == {"a": {"mail": None}, "l": [{"n": "X"}, None, None], "n": None, "o": 3}
    assert kept == {
        "a": {"mail": None, "z": 1},
        "l": [{"n": "X", "k": 2}, None, None],
        "n": None,
        "o": 3,
    }


@pytest.mark.parametrize("document", ["'\"raw\"'", "'[\"raw\"]'", '\'{"mail": {"x": "raw"}}\''])
def test_a_document_of_another_shape_lets_nothing_through(source: Session, document: str) -> None:
    rule = Rule("json", paths=(("mail", Rule("hash", "d")),), rest="keep")
    assert "raw" not in str(one(source, column("jsonb"), rule, document))


EVIL = [
    "x'); DROP TABLE kept; --",
    "\\'; SELECT 1; --",
    'a"b',
    "$$",
    "%s %(x)s",
    "\\x41",
    ":v",
    "ä\n",
]


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("strings", ["on", "off"])
def test_names_constants_and_keys_of_documents_are_data(
    source: Session, evil: str, strings: str
) -> None:
    source.rows(f"SET standard_conforming_strings = {strings}")
    source.rows("SET backslash_quote = off; SET escape_string_warning = off")
    for rule in (Rule("constant", value=evil), Rule("hash", "d"), Rule("text", "d")):
        found = [
            masked(source, column("text", name), rule, "SELECT 'x'::text, 1", table)
            for name in (evil, "v")
            for table in (None, of_bytes(LARGE, evil))
        ]
        assert found == [found[0]] * 4
    key = evil.replace('"', "")
    document = Rule("json", paths=((f'"{key}"', Rule("constant", value=evil)),))
    value = f"jsonb_build_object({literal(key)}::text, 'x', 'other', 1)"
    assert one(source, column("jsonb"), document, value) == {key: evil}


@pytest.mark.parametrize("key", ["", "ab" * 31, "not hex"])
def test_a_key_that_is_none_masks_nothing(cluster: Cluster, key: str) -> None:
    with Session.open(conninfo(cluster)) as session:
        session.rows("SELECT set_config('countersign.mask_key', %s, false)", [key])
        with pytest.raises(ServerError, match=r"out of valid range|hexadecimal"):
            one(session, column("text"), Rule("hash", "d"), "'x'")


def test_a_session_without_a_key_masks_nothing(cluster: Cluster) -> None:
    with (
        Session.open(cluster.conninfo("postgres", "postgres")) as session,
        pytest.raises(ServerError, match=r"countersign\.mask_key"),
    ):
        one(session, column("text"), Rule("hash", "d"), "'x'")


def test_the_key_is_in_no_log_and_no_activity_that_others_see(cluster: Cluster) -> None:
    key = "5e" * 16 + "c7" * 16
    for name in ("log_statement = 'all'", "log_connections = on", "log_min_duration_statement = 0"):
        cluster.psql(f"ALTER SYSTEM SET {name}")
    cluster.psql("SELECT pg_reload_conf()")
    try:
        with Session.open(conninfo(cluster, key)) as session:
            assert one(session, column("text"), Rule("email", "d"), "'ann@corp'")
            with pytest.raises(ServerError):
                one(session, column("bigint"), Rule("integer", "d", bits=8), "'999'")
            seen = cluster.psql("SELECT * FROM pg_stat_activity")
    finally:
        cluster.psql("ALTER SYSTEM RESET ALL")
        cluster.psql("SELECT pg_reload_conf()")
    log = (cluster.folder / "log").read_text(errors="replace")
    assert "sha256" in log
    assert "sha256" in seen
    assert key not in seen + log


def test_what_is_suggested_for_a_real_schema_is_run_as_it_is(cluster: Cluster) -> None:
    cluster.new_database("suggested")
    cluster.psql(
        """
        CREATE DOMAIN mail AS varchar(120) CHECK (VALUE LIKE '%@%');
        CREATE TABLE customer (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text,
            email mail UNIQUE NOT NULL, phone text, born date, zip char(5), password text NOT NULL,
            status text, created_at timestamptz DEFAULT now(),
            upper text GENERATED ALWAYS AS (upper(name)) STORED);
        CREATE TABLE login (email mail REFERENCES customer (email),
            customer_id bigint REFERENCES customer, ip inet, note text);
        INSERT INTO customer (name, email, phone, born, zip, password, status)
            SELECT 'Ann ' || i, 'a' || i || '@x', '+49', '1990-01-01', '12345', 'p', 'new'
            FROM generate_series(1, 50) AS i;
        INSERT INTO login SELECT email, id, '10.0.0.1', 'called' FROM customer;
        """,
        "suggested",
    )
    with Session.open(conninfo(cluster, name="suggested")) as session:
        session.rows("BEGIN")
        catalog = read_source(session).catalog
        found = suggestions(catalog)
        rules = {str(t): {c: r for c, r in by.items() if r} for t, by in found.items()}
        require_classified(catalog, rules)
        rows = {}
        for table in catalog.tables:
            columns = [c for c in table.columns if not c.generated]
            masks = ", ".join(expression(c, rules[str(table.name)][c.name]) for c in columns)
            rows[table.name] = session.rows(f"SELECT {masks} FROM {table.name.sql}")
    customers, logins = rows[TableName("public", "customer")], rows[TableName("public", "login")]
    assert {row[:2] for row in logins} == {(row[2], row[0]) for row in customers}
    assert len({row[2] for row in customers}) == 50
    assert not any("Ann " in row[1] for row in customers)
