"""What refresh.toml may say of columns, and which rules hold for a catalog."""

from dataclasses import replace
from typing import Any

import pytest

from installer.errors import ConfigurationError
from installer.settings import Table as Toml
from installer.settings import load_toml
from refresher.classification import require_classified, rules_of, unused
from refresher.documents import steps
from refresher.errors import UnclassifiedError
from refresher.keyed import words
from refresher.masks import CLASSES, LARGE, expression
from refresher.model import Catalog, Column, ForeignKey, Table, TableName
from refresher.rules import OPTIONS, Rule, parse_rule, parse_rules
from refresher.suggestions import section, suggested, suggestions


def column(name: str, type_: str = "text", length: int | None = None, **flags: bool) -> Column:
    made = Column(name, type_, type_, length, *[False] * 4)
    return replace(made, **flags)  # type: ignore[arg-type]  # flags of a column


def table(name: str, *columns: Column, **given: Any) -> Table:
    made = Table(TableName("crm", name), columns, 0, 0, (), None, is_partitioned=False, parents=())
    return replace(made, **given)


def catalog(*tables: Table, keys: tuple[ForeignKey, ...] = ()) -> Catalog:
    return Catalog(tables, keys, ())


def rule(**values: Any) -> Rule:
    return parse_rule(Toml({key.rstrip("_"): value for key, value in values.items()}, "here"))


def refusal(made: Catalog, rules: dict[str, dict[str, Rule]]) -> str:
    with pytest.raises(UnclassifiedError) as refused:
        require_classified(made, rules)
    assert refused.value.exit_code == 66
    return refused.value.detail


def test_every_class_has_its_options_and_its_mask() -> None:
    assert list(CLASSES) == list(OPTIONS)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"class_": "emial", "domain": "d"}, "did you mean 'email'"),
        ({"class_": "email"}, "domain is missing"),
        ({"class_": "keep", "domain": "d"}, "unknown key 'domain'"),
        ({"class_": "email", "domain": "a'b"}, "does not match"),
        ({"class_": "hash", "domain": "d", "length": 15}, "outside 16..64"),
        ({"class_": "integer", "domain": "d", "bits": 64}, "outside 8..63"),
        ({"class_": "name", "domain": "d", "part": "first"}, "does not match"),
        ({"class_": "date", "domain": "d", "by": "id", "days": 0}, "outside 1..3650"),
        ({"class_": "date", "domain": "d"}, "by is missing"),
        ({"class_": "constant", "value": 1}, "text in quotes"),
        ({"class_": "constant", "value": "a\0"}, "does not match"),
        ({"class_": "sql", "sql": "  "}, "does not match"),
        (
            {"class_": "json", "paths": {"a": {"class": "date", "domain": "d", "by": "x"}}},
            "a: no value in a document",
        ),
        ({"class_": "json", "paths": {"a..b": {"class": "null"}}}, "'a..b' is no path"),
        (
            {"class_": "json", "paths": {"a": {"class": "null"}, "a.b": {"class": "null"}}},
            "'a' ends on the way",
        ),
        (
            {"class_": "json", "paths": {"a[*]": {"class": "null"}, "a.b": {"class": "null"}}},
            "needs a list where others need an object",
        ),
        ({"class_": "json", "paths": {}, "rest": "null"}, "does not match"),
    ],
)
def test_a_rule_that_is_not_exact_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"here") as refused:
        rule(**values)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "path, found",
    [
        ("a.b", ("a", "b")),
        ("a[*].b", ("a", None, "b")),
        ("[*]", (None,)),
        ('a."b.c"', ("a", "b.c")),
        ("a[*][*]", ("a", None, None)),
    ],
)
def test_a_path_is_told_as_keys_and_lists(path: str, found: tuple[str | None, ...]) -> None:
    assert steps(path) == found


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a[0]", "a[*]b", 'a"b"', "a..b", '"a"b'])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is no path"):
        steps(path)


@pytest.mark.parametrize(
    "of, kind, message",
    [
        (column("v", "integer"), "email", "integer) cannot have the class email: it is for text"),
        (column("v", "numeric"), "integer", "it is for smallint, integer and bigint"),
        (column("v", not_null=True), "null", "the column is NOT NULL"),
        (column("v", unique=True), "name", "the column is unique"),
        (column("v", unique=True), "text", "what fits is keep, null, hash, email"),
        (column("v", unique=True), "sql", "the column is unique"),
        (column("v", "varchar", 20), "email", "it is for text"),
        (column("v", "character varying", 20), "email", "it needs 35 characters"),
        (column("v", "character varying", 20), "hash", "it needs 32 characters; what fits is"),
        (column("v", "character varying", 15), "phone", "it needs 16 characters"),
    ],
)
def test_a_class_that_does_not_fit_is_refused_with_those_that_do(
    of: Column, kind: str, message: str
) -> None:
    with pytest.raises(UnclassifiedError) as refused:
        expression(of, Rule(kind, domain="d"))
    assert message in str(refused.value)
    assert "column v" in str(refused.value)


def test_more_bits_than_the_type_has_are_refused() -> None:
    with pytest.raises(UnclassifiedError, match="63 bits are more than the type has"):
        expression(column("v", "integer"), Rule("integer", "d", bits=63))


@pytest.mark.parametrize("kind, is_prepared", [("hash", True), ("text", True), ("keep", False)])
def test_only_for_a_large_table_something_is_computed_before_its_first_row(
    kind: str, *, is_prepared: bool
) -> None:
    of, its_rule = column("v"), Rule(kind, "d")
    small, large = (expression(of, its_rule, table("t", bytes=size)) for size in (LARGE - 1, LARGE))
    assert expression(of, its_rule) == small
    assert (large != small) is is_prepared


def test_the_author_of_an_expression_may_say_that_it_is_unique() -> None:
    of = column("v", unique=True)
    assert "upper(v)" in expression(of, rule(class_="sql", sql="upper(v)", unique=True))


def test_all_columns_without_a_class_are_named_at_once() -> None:
    made = catalog(
        table("customer", column("id", "bigint"), column("mail"), column("up", generated=True)),
        table("visit", column("at", "date")),
    )
    found = refusal(made, {"crm.customer": {"id": Rule("keep")}})
    assert found.splitlines() == [
        "crm.customer: column mail (text) has no class",
        "crm.visit: column at (date) has no class",
    ]


def test_rules_for_what_there_is_not_are_told_and_refuse_nothing() -> None:
    made = catalog(table("customer", column("mail"), column("up", generated=True)))
    rules = {"mail": Rule("null"), "mial": Rule("null"), "up": Rule("null")}
    require_classified(made, {"crm.customer": rules})
    found = list(unused(made, {"crm.customer": rules, "crm.custmer": {}}))
    assert found == [
        "crm.customer: there is no column mial to mask; did you mean 'mail'?",
        "crm.customer: there is no column up to mask; known are mail",
        "crm.custmer: there is no such table; did you mean 'crm.customer'?",
    ]


def test_a_misspelt_rule_is_named_where_its_column_has_none() -> None:
    found = refusal(
        catalog(table("customer", column("mail"))), {"crm.customer": {"mial": Rule("null")}}
    )
    assert found.splitlines() == [
        "crm.customer: column mail (text) has no class",
        "crm.customer: there is no column mial to mask; did you mean 'mail'?",
    ]


def test_a_part_of_a_primary_key_has_to_be_unique() -> None:
    made = catalog(table("line", column("who"), column("no"), primary_key=("who", "no")))
    found = refusal(made, {"crm.line": {"who": Rule("name", "d"), "no": Rule("hash", "d")}})
    assert "column who (text) cannot have the class name: the column is unique" in found


def test_a_date_is_shifted_by_a_column_that_there_is() -> None:
    made = catalog(table("customer", column("born", "date")))
    found = refusal(made, {"crm.customer": {"born": Rule("date", "d", by="brn")}})
    assert "column born: by is 'brn'; did you mean 'born'?" in found


def test_a_partition_has_the_rules_of_its_table_and_the_ledger_none() -> None:
    whole = table("log", column("mail"), is_partitioned=True)
    part = replace(whole, name=TableName("crm", "log_1"), partition_of=whole.name)
    ledger = replace(whole, name=TableName("countersign", "release"))
    made = catalog(whole, part, ledger)
    rules = {"crm.log": {"mail": Rule("null")}}
    require_classified(made, rules)
    assert rules_of(made, part, rules) == rules["crm.log"]


KEY = ForeignKey(
    "fk",
    TableName("crm", "visit"),
    ("who",),
    TableName("crm", "customer"),
    ("id",),
    nullable=True,
)


@pytest.mark.parametrize(
    "who, id_, message",
    [
        (Rule("keep"), Rule("integer", "d"), "both have to be masked alike"),
        (Rule("integer", "d"), Rule("integer", "e", bits=31), "both have to be masked alike"),
        (Rule("integer", "d"), Rule("integer", "d"), "bits too"),
        (Rule("integer", "d"), Rule("integer", "d", bits=31), ""),
        (Rule("keep"), Rule("keep"), ""),
        (Rule("null"), Rule("integer", "d"), ""),
        (Rule("sql", sql="who"), Rule("keep"), ""),
    ],
)
def test_a_foreign_key_whose_sides_are_masked_apart_is_refused(
    who: Rule, id_: Rule, message: str
) -> None:
    made = catalog(
        table("customer", column("id", "bigint", unique=True)),
        table("visit", column("who", "integer")),
        keys=(KEY,),
    )
    rules = {"crm.customer": {"id": id_}, "crm.visit": {"who": who}}
    if message:
        found = refusal(made, rules)
        assert "crm.visit: column who references crm.customer.id (fk)" in found
        assert message in found
    else:
        require_classified(made, rules)


@pytest.mark.parametrize(
    "of, kind",
    [
        (column("email"), "email"),
        (column("eMail"), "email"),
        (column("email_address"), "email"),
        (column("email", length=20), None),
        (column("first_name"), "name"),
        (column("lastName"), "name"),
        (column("name"), "name"),
        (column("full_name", unique=True), "hash"),
        (column("phone_number"), "phone"),
        (column("street"), "address"),
        (column("city"), "city"),
        (column("zip"), "text"),
        (column("iban"), "text"),
        (column("iban", unique=True), "hash"),
        (column("password_hash", not_null=True), "hash"),
        (column("api_token"), "null"),
        (column("note"), "null"),
        (column("comment", not_null=True), "constant"),
        (column("last_ip", "inet"), "constant"),
        (column("ip_address"), "constant"),
        (column("birth_date", "date"), "date"),
        (column("order_status"), "keep"),
        (column("status_text"), None),
        (column("title"), None),
        (column("data", "jsonb"), None),
        (column("photo", "bytea"), None),
        (column("due", "date"), None),
        (column("created_at", "timestamp with time zone"), "keep"),
        (column("total", "numeric"), "keep"),
        (column("phone", "bigint"), None),
        (column("salary", "numeric"), None),
        (column("is_active", "boolean"), "keep"),
        (column("uid", "uuid", unique=True), "hash"),
        (column("uid", "uuid"), None),
    ],
)
def test_a_column_is_suggested_a_class_only_where_its_name_tells(
    of: Column, kind: str | None
) -> None:
    of = replace(of, base="character varying") if of.length else of
    found = suggested(table("customers", of, primary_key=("id",)), of)
    assert (found.kind if found else None) == kind


def test_a_name_that_is_no_persons_is_left_to_who_knows() -> None:
    of = column("name")
    assert suggested(table("product", of), of) is None


def test_a_foreign_key_is_suggested_what_it_references() -> None:
    made = catalog(
        table("customer", column("id", "uuid", unique=True)),
        table("visit", column("who", "uuid")),
        keys=(KEY,),
    )
    found = suggestions(made)
    assert found[KEY.table]["who"] == found[KEY.references]["id"] == Rule("hash", "customer.id")


def test_a_foreign_key_that_cannot_have_what_it_references_is_left_to_who_knows() -> None:
    shorter = Column("who", "character varying(20)", "character varying", 20, *[False] * 4)
    made = catalog(
        table("customer", column("id", unique=True), column("email", unique=True)),
        table("visit", shorter),
        keys=(replace(KEY, referenced=("email",)),),
    )
    assert suggestions(made)[KEY.table]["who"] is None


def test_a_birthday_without_a_key_that_says_whose_is_left_to_who_knows() -> None:
    of = column("born", "date")
    assert suggested(table("customer", of, primary_key=("a", "b")), of) is None


def test_of_a_foreign_key_without_a_class_the_column_is_told_once() -> None:
    made = catalog(table("customer", column("id")), table("visit", column("who")), keys=(KEY,))
    found = refusal(made, {"crm.customer": {}, "crm.visit": {"who": Rule("keep")}})
    assert found == "crm.customer: column id (text) has no class"


def test_what_init_writes_is_read_as_it_was_meant_and_doubts_stop_the_run() -> None:
    made = catalog(
        table(
            "customer",
            column("email"),
            column("tell\nme", "jsonb"),
            column('a "b"', "integer"),
            column("born", "date"),
            column("first_name"),
            primary_key=("email",),
        )
    )
    text = section(made)
    rules = parse_rules(load_toml(text.encode(), "refresh.toml").tables("columns"))
    assert rules["crm.customer"] == {
        "email": Rule("email", "customer.email"),
        'a "b"': Rule("keep"),
        "born": Rule("date", "customer.email", by="email"),
        "first_name": Rule("name", "customer.first_name", part="given"),
    }
    assert refusal(made, dict(rules)) == "crm.customer: column tell\nme (jsonb) has no class"  # type: ignore[arg-type]  # a mapping of mappings


@pytest.mark.parametrize("kind", ["given", "family", "street", "city"])
def test_words_are_plain_short_and_listed_once(kind: str) -> None:
    listed = words(kind)
    assert len(set(listed)) == len(listed) <= 128
    assert all(word.isascii() and word.isalpha() and len(word) <= 8 for word in listed)
