"""What is said of statements that lock tables; tests/integration/test_locks.py asks a server."""

import pytest

from packager.locks import Lock, Mode, Work, outside
from packager.sqllocks import effect_of, effects
from packager.sqlrules import LONGEST
from tests.locking import ALONE, OF_AN_INDEX, STATEMENTS


def locked(*statements: str) -> list[tuple[int, str]]:
    """The tables that statements lock which were there before; each with the statement's number."""
    placed = [(number, effect_of(statement)) for number, statement in enumerate(statements, 1)]
    return [(number, lock.table) for number, lock in outside(placed)]


@pytest.mark.parametrize("statement", [*STATEMENTS, *OF_AN_INDEX, *ALONE])
def test_a_statement_is_said_to_lock_these_tables(statement: str) -> None:
    claims = (STATEMENTS | OF_AN_INDEX | ALONE)[statement]

    found = effect_of(statement).locks

    assert {".".join(filter(None, lock.name)): (lock.mode, lock.work) for lock in found} == claims
    assert all(lock.of_index == (statement in OF_AN_INDEX) for lock in found)


@pytest.mark.parametrize(
    "statement, said",
    [
        (
            "ALTER TABLE orders ADD COLUMN x int, DROP COLUMN y, ADD z int",
            (
                "ALTER TABLE ADD COLUMN, DROP COLUMN: ACCESS EXCLUSIVE on orders: "
                "nobody reads or writes it at all"
            ),
        ),
        (
            "CREATE INDEX ON s.orders (x)",
            (
                "CREATE INDEX: SHARE on s.orders: nobody writes it at all, "
                "and an index is built of all of it, which takes time with its size"
            ),
        ),
        (
            "ALTER TABLE orders ADD FOREIGN KEY (a) REFERENCES b NOT VALID",
            (
                "ALTER TABLE ADD FOREIGN KEY NOT VALID: SHARE ROW EXCLUSIVE on orders: "
                "nobody writes it at all\n"
                "ALTER TABLE ADD FOREIGN KEY NOT VALID: SHARE ROW EXCLUSIVE on b: "
                "nobody writes it at all"
            ),
        ),
        (
            "ALTER TABLE orders VALIDATE CONSTRAINT c",
            (
                "ALTER TABLE VALIDATE CONSTRAINT: SHARE UPDATE EXCLUSIVE on orders: "
                "others read and write it at all, "
                "and all of it is read, which takes time with its size"
            ),
        ),
        (
            "DROP INDEX i",
            "DROP INDEX: ACCESS EXCLUSIVE on the table of i: nobody reads or writes it at all",
        ),
        (
            "ALTER TABLE orders OF kind",
            "ALTER TABLE …: ACCESS EXCLUSIVE on orders: nobody reads or writes it at all",
        ),
    ],
)
def test_a_lock_is_told_in_words(statement: str, said: str) -> None:
    assert "\n".join(lock.words("at all") for lock in effect_of(statement).locks) == said


@pytest.mark.parametrize("work", [work for work in Work if work])
def test_whatever_is_done_with_the_rows_has_words(work: Work) -> None:
    lock = Lock("CLUSTER", ("", "orders"), Mode.ACCESS_EXCLUSIVE, work)

    assert len(lock.words("so long").partition(" so long, and ")[2]) > 0


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE n (id int)",
        "CREATE TABLE IF NOT EXISTS public.n (id int)",
        "CREATE TEMPORARY TABLE n (id int)",
        "CREATE TABLE n AS SELECT 1",
        "CREATE VIEW n AS SELECT 1",
        "CREATE FOREIGN TABLE n (id int) SERVER there",
    ],
)
def test_who_uses_a_table_that_the_release_makes_is_nobody(made: str) -> None:
    assert locked(made, "ALTER TABLE n OWNER TO a", "TRUNCATE public.n") == []


def test_a_table_is_locked_against_others_up_to_where_it_is_made_anew() -> None:
    assert locked("DROP TABLE n", "CREATE TABLE n (id int)", "TRUNCATE n") == [(1, "n")]


def test_a_table_of_the_same_name_in_another_schema_is_another() -> None:
    assert locked("CREATE TABLE a.n (id int)", "TRUNCATE b.n", "TRUNCATE a.n") == [(2, "b.n")]


def test_a_new_table_is_new_by_any_name() -> None:
    renamed = ["CREATE TABLE n (id int)", "ALTER TABLE n RENAME TO o", "TRUNCATE o"]
    moved = ["CREATE TABLE a.n (id int)", "ALTER TABLE a.n SET SCHEMA b", "TRUNCATE b.n"]

    assert locked(*renamed) == locked(*moved) == []


def test_a_table_that_was_there_stays_old_by_a_new_name() -> None:
    found = locked("ALTER TABLE n RENAME TO o", "ALTER TABLE n SET SCHEMA b", "TRUNCATE o")

    assert found == [(1, "n"), (2, "n"), (3, "o")]


def test_an_index_that_the_release_made_locks_nobody_out() -> None:
    made = ["CREATE TABLE n (id int)", "CREATE INDEX i ON n (id)", "ALTER INDEX i RENAME TO j"]

    assert locked(*made, "REINDEX INDEX i", "DROP INDEX j") == []


def test_statements_are_found_among_others_and_behind_comments() -> None:
    text = (
        "SELECT 1; -- drop\n/* é; */ TRUNCATE a;\nINSERT INTO t VALUES ('drop');DROP ROLE r;lock b"
    )

    found = list(effects(text))

    assert [text[at:].split(maxsplit=1)[0] for at, _ in found] == ["TRUNCATE", "lock"]
    assert [effect.locks[0].table for _, effect in found] == ["a", "b"]


@pytest.mark.parametrize("text", ["", "SELECT 1;", "-- drop", "INSERT INTO t VALUES ('drop');"])
def test_what_locks_nothing_has_no_effect(text: str) -> None:
    assert list(effects(text)) == []


def test_a_statement_that_is_too_long_for_a_tree_is_left_out() -> None:
    deep = f"ALTER TABLE a ADD CHECK ({'+'.join('1' * LONGEST)} > 0)"

    assert [effect.locks[0].table for _, effect in effects(f"{deep}; TRUNCATE b")] == ["b"]
