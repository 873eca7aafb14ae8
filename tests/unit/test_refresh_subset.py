"""Which rows a limited copy takes: the rules as they are read, the least set that they allow."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from installer.errors import ConfigurationError
from installer.settings import load_toml
from refresher.closing import Packed, close
from refresher.errors import RefreshFileError, SubsetError
from refresher.limit import Follow, Limit, Reference, Subset, parse_limit
from refresher.model import Catalog, ForeignKey, TableName
from refresher.rowset import RowSet
from refresher.subset import Equality, Level, Rows, Seed, Step, plan
from tests.closures import (
    Keys,
    Toy,
    catalog_of,
    foreign_keys,
    key,
    naive,
    name,
    rules_for,
    some_tables,
    sound,
    table,
    toys,
)


def catalog(*keys: ForeignKey, tables: str = "customer orders line product log") -> Catalog:
    return Catalog(tuple(map(table, tables.split())), keys, ())


SHOP = catalog(
    key("orders", "b", "customer"),
    key("line", "b", "orders"),
    key("line", "c", "product"),
    key("log", "b", "customer"),
)


def limit(*, rest: bool = True, follow: Mapping[str, bool] | None = None) -> Limit:
    follows = [Follow(f"public.{table}", None, say) for table, say in (follow or {}).items()]
    return Limit((Subset("public.customer", "b = 1"),), (), tuple(follows), rest)


def names(tables: frozenset[TableName]) -> str:
    return " ".join(sorted(found.name for found in tables))


# -- the rules as they are read ------------------------------------------------------------------


def test_the_rules_are_read() -> None:
    text = b"""
    [limit]
    rest = "none"
    [[subset]]
    table = "public.customer"
    where = "region = 'EU'"
    [[reference]]
    table = "public.visit"
    columns = ["customer"]
    references = "public.customer"
    referenced = ["id"]
    follow = false
    [[foreign_key]]
    table = "public.orders"
    follow = false
    [[foreign_key]]
    table = "public.orders"
    name = "orders_customer_fkey"
    follow = true
    """
    assert parse_limit(load_toml(text, "refresh.toml")) == Limit(
        subsets=(Subset("public.customer", "region = 'EU'"),),
        references=(
            Reference("public.visit", ("customer",), "public.customer", ("id",), follow=False),
        ),
        follows=(
            Follow("public.orders", None, follow=False),
            Follow("public.orders", "orders_customer_fkey", follow=True),
        ),
        rest_is_copied=False,
    )


def test_without_rules_nothing_is_limited() -> None:
    read = parse_limit(load_toml(b"", "refresh.toml"))
    assert read == Limit(())
    assert names(plan(read, SHOP).whole) == "customer line log orders product"


@pytest.mark.parametrize(
    "text, message",
    [
        ('[limit]\nrest = "some"', "rest is 'some', which does not match all|none"),
        ('[limit]\nresr = "all"', "unknown key 'resr'; did you mean 'rest'?"),
        ('[[subset]]\ntable = "t"', "[[subset]] number 1: where is missing"),
        ('[[subset]]\ntable = "t"\nwhere = " "', "where is ' '"),
        ('[[subset]]\ntable = "t"\nwhere = "x"\nlimit = 5', "unknown key 'limit'"),
        ('[[foreign_key]]\ntable = "t"', "[[foreign_key]] number 1: follow is missing"),
        ('[[foreign_key]]\ntable = "t"\nfollow = "yes"', "follow must be true or false"),
        (
            '[[reference]]\ntable="t"\ncolumns=["a", "b"]\nreferences="u"\nreferenced=["a"]',
            "columns and referenced must name as many columns each",
        ),
        (
            2 * '[[foreign_key]]\ntable = "t"\nfollow = true\n',
            "refresh.toml: [[foreign_key]] speaks of one key twice",
        ),
        (
            2 * '[[reference]]\ntable="t"\ncolumns=["a"]\nreferences="u"\nreferenced=["a"]\n',
            "refresh.toml: [[reference]] speaks of one key twice",
        ),
        (
            '[[reference]]\ntable = "t"\ncolumns = []\nreferences = "u"\nreferenced = []',
            "and at least one",
        ),
    ],
)
def test_a_rule_that_is_not_one_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        parse_limit(load_toml(text.encode(), "refresh.toml"))


@pytest.mark.parametrize(
    "rules, message",
    [
        (
            Limit((Subset("public.custmer", "true"),)),
            "[[subset]]: the source has no table 'public.custmer'; did you mean 'public.customer'?",
        ),
        (
            Limit((), (Reference("public.log", ("b",), "public.order", ("a",)),)),
            "of public.log: the source has no table 'public.order'; did you mean 'public.orders'?",
        ),
        (
            Limit((), (Reference("public.log", ("d",), "public.orders", ("a",)),)),
            "[[reference]] of public.log: public.log has no column 'd'; known are a, b, c",
        ),
        (
            Limit((), (Reference("public.log", ("b",), "public.orders", ("id",)),)),
            "public.orders has no column 'id'",
        ),
        (
            Limit((), (), (Follow("public.log", "log_fkey", follow=True),)),
            "[[foreign_key]]: public.log has no foreign key 'log_fkey'; did you mean 'log_b_fkey'?",
        ),
        (
            Limit((), (), (Follow("public.product", "x", follow=True),)),
            "public.product has no foreign key 'x'; it has none",
        ),
        (
            Limit((), (), (Follow("public.nothing", None, follow=True),)),
            "[[foreign_key]]: the source has no table 'public.nothing'",
        ),
    ],
)
def test_what_the_source_does_not_have_is_named_with_the_nearest(
    rules: Limit, message: str
) -> None:
    with pytest.raises(RefreshFileError, match=re.escape(message)):
        plan(rules, SHOP)


# -- which tables are limited --------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules, limited, whole, empty",
    [
        (limit(), "customer line log orders product", "", ""),
        (limit(follow={"log": False}), "customer line orders product", "log", ""),
        (limit(follow={"log": False}, rest=False), "customer line orders product", "", "log"),
        (limit(follow={"orders": False, "log": False}), "customer", "line log orders product", ""),
        (
            limit(follow={"orders": False, "log": False}, rest=False),
            "customer",
            "",
            "line log orders product",
        ),
    ],
)
def test_a_table_that_no_rule_reaches_is_whole_or_empty(
    rules: Limit, limited: str, whole: str, empty: str
) -> None:
    planned = plan(rules, SHOP)
    assert (names(planned.limited), names(planned.whole), names(planned.empty)) == (
        limited,
        whole,
        empty,
    )


def test_the_ledger_is_copied_whole_whatever_the_rest_is() -> None:
    source = catalog(tables="customer countersign.ledger log")
    planned = plan(limit(rest=False), source)
    assert (names(planned.whole), names(planned.empty)) == ("ledger", "log")


def test_a_key_said_by_its_name_counts_for_more_than_its_table() -> None:
    source = catalog(key("log", "b", "customer"), key("log", "c", "customer"))
    follows = (
        Follow("public.log", "log_b_fkey", follow=True),
        Follow("public.log", None, follow=False),
    )
    planned = plan(Limit((Subset("public.customer", "true"),), (), follows), source)
    downwards = [step for steps in planned.steps.values() for step in steps if step.down]
    assert [step.key.name for step in downwards] == ["log_b_fkey"]


# -- what is asked -------------------------------------------------------------------------------


def test_a_question_quotes_every_name_and_compares_as_the_key_does() -> None:
    odd = TableName("Own", 'a"b')
    column = 'c"d'
    own = ForeignKey("fk", odd, (column,), odd, (column,), nullable=True)
    step = Step(own, (Equality("OPERATOR(public.=)", ' COLLATE "C"'),), odd, down=True)
    assert 'known."c""d" OPERATOR(public.=) found."c""d" COLLATE "C"' in step.query
    assert 'FROM ONLY "Own"."a""b" AS found' in step.query


def test_a_condition_ends_where_it_ends_even_with_a_comment() -> None:
    seed = Seed(Subset("public.customer", "b = 1 -- EU"), name("customer"), spread=False)
    assert "(\nb = 1 -- EU\n) GROUP BY" in seed.query


def test_what_was_found_down_a_key_is_not_asked_for_the_row_that_it_was_found_from() -> None:
    customers = Subset("public.customer", "b = 1")
    assert asked_upwards(Limit((customers,))) == ["line_c_fkey"]
    both = Limit((customers, Subset("public.product", "b = 2")))
    assert asked_upwards(both) == ["line_b_fkey", "line_c_fkey", "orders_b_fkey"]


def asked_upwards(rules: Limit) -> list[str]:
    steps = [step for found in plan(rules, SHOP).steps.values() for step in found]
    return sorted(step.key.name for step in steps if not step.down)


def test_a_key_of_a_partitioned_table_is_asked_from_each_partition_to_all_of_them() -> None:
    tables = (
        table("event", partitioned=True),
        table("event_1", "event", partitioned=True),
        table("event_1_1", "event_1"),
        table("event_2", "event"),
        table("customer"),
    )
    source = Catalog(tables, (key("event", "b", "customer"), key("event", "c", "event")), ())
    planned = plan(limit(), source)
    assert names(planned.limited) == "customer event_1_1 event_2"
    steps = [step for found in planned.steps.values() for step in found]
    (down,) = [step for step in steps if step.down and step.key.columns == ("b",)]
    assert 'FROM "public"."event" AS found' in down.query
    up = sorted(step.origin.name for step in steps if step.target == name("customer"))
    assert up == ["event_1_1", "event_2"]


# -- the least set: compared with rules that are tried on all rows until nothing changes ---------


@settings(max_examples=300, deadline=None)
@given(toys, foreign_keys(), some_tables, st.booleans())
def test_the_rows_chosen_are_the_least_set_that_the_rules_allow(
    tmp_path_factory: pytest.TempPathFactory,
    toy: Toy,
    keys: Keys,
    seeds: set[TableName],
    rest: bool,  # noqa: FBT001
) -> None:
    keys = sound(toy, keys)
    rules = rules_for(toy, keys, seeds, rest=rest)
    planned = plan(rules, catalog_of(keys))
    expected = naive(toy, rules, keys)
    with RowSet(tmp_path_factory.getbasetemp()) as rows:
        close(planned, rows, toy.ask)
        for t in toy.rows:
            if t in planned.whole:
                assert expected[t] == set(range(len(toy.rows[t])))
            else:
                at = Rows(t, Level.CHOSEN)
                found = "".join(rows.array(at, chunk) for chunk in rows.chunks(at))
                assert {int(n) - 1 for n in re.findall(r",(\d+)\)", found)} == expected[t]


def test_a_subset_without_a_row_is_told_and_not_taken_for_an_empty_copy(tmp_path: Path) -> None:
    toy = Toy({t.name: [(1, 2, 3)] for t in SHOP.tables})
    with (
        RowSet(tmp_path) as rows,
        pytest.raises(
            SubsetError, match=re.escape("[[subset]] of public.customer: no row has b = 1")
        ),
    ):
        close(plan(limit(), SHOP), rows, toy.ask)


def chosen(toy: Toy, rules: Limit, source: Catalog, folder: Path) -> dict[str, int]:
    """How many rows of each table."""
    with RowSet(folder) as rows:
        close(plan(rules, source), rows, toy.ask)
        return {t.name: rows.count(Rows(t, Level.CHOSEN)) for t in toy.rows}


def test_what_one_member_needs_does_not_bring_what_else_needs_that(tmp_path: Path) -> None:
    toy = Toy(
        {
            name("customer"): [(1, 1, None), (2, 2, None)],
            name("orders"): [(10, 1, None), (11, 2, None)],
            name("line"): [(None, 10, 100), (None, 11, 100)],
            name("product"): [(100, None, None), (101, None, None)],
            name("log"): [],
        }
    )
    counts = chosen(toy, limit(), SHOP, tmp_path)
    assert counts == {"customer": 1, "orders": 1, "line": 1, "product": 1, "log": 0}


def test_a_followed_key_also_leads_down_from_what_only_comes_along(tmp_path: Path) -> None:
    source = catalog(
        key("customer", "c", "currency"),
        key("rate", "b", "currency"),
        tables="customer currency rate",
    )
    toy = Toy(
        {
            name("customer"): [(1, 1, 7), (2, 2, 8)],
            name("currency"): [(7, None, None), (8, None, None)],
            name("rate"): [(1, 7, None), (2, 7, None), (3, 8, None)],
        }
    )
    counts = chosen(toy, limit(follow={"rate": True}), source, tmp_path)
    assert counts == {"customer": 1, "currency": 1, "rate": 2}
    assert names(plan(limit(), source).whole) == "rate"


def test_what_the_ledger_references_comes_along_though_the_rest_stays_empty(tmp_path: Path) -> None:
    source = catalog(
        key("countersign.ledger", "b", "person"), tables="customer countersign.ledger person log"
    )
    toy = Toy(
        {
            name("customer"): [(1, 1, None)],
            name("countersign.ledger"): [(1, 5, None)],
            name("person"): [(5, None, None), (6, None, None)],
        }
    )
    counts = chosen(toy, limit(rest=False), source, tmp_path)
    assert counts == {"customer": 1, "person": 1, "ledger": 0}
    assert names(plan(limit(rest=False), source).whole) == "ledger"


def test_rows_found_in_a_partition_that_is_whole_anyway_are_not_kept(tmp_path: Path) -> None:
    tables = (
        table("event", partitioned=True),
        table("old", "event"),
        table("new", "event"),
        table("note"),
    )
    source = Catalog(tables, (key("note", "b", "event"),), ())
    rules = Limit(
        (Subset("public.new", "b = 1"),), (), (Follow("public.note", None, follow=False),)
    )

    def ask(question: Seed | Step, _: str | None) -> Iterator[Packed]:
        if isinstance(question, Step):
            yield name("old"), 0, bytes([0, 0, 1])
        yield name("new"), 0, bytes([0, 0, 1 if isinstance(question, Seed) else 2])

    planned = plan(rules, source)
    assert names(planned.whole) == "note old"
    with RowSet(tmp_path) as rows:
        close(planned, rows, ask)
        assert rows.count(Rows(name("old"), Level.CHOSEN)) == 0
        assert rows.count(Rows(name("new"), Level.CHOSEN)) == 2
