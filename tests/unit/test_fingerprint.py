"""Fingerprints of schemas, how two schemas differ, and what is told of it."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer.errors import SchemaDiffersError
from installer.fingerprint import (
    LAYERS,
    MAX_NAMED,
    MAX_SHOWN,
    Change,
    Schema,
    changes,
    describe,
    require_same,
    schema_of,
)

TABLE = ("structure", "table", "public.t", "(id, code)")
COLUMN = ("structure", "column", "public.t.id", "integer NOT NULL")
GRANT = ("privileges", "table", "public.t", "reader=r/crm_owner")
OWNER = ("owners", "table", "public.t", "crm_owner")
COMMENT = ("comments", "table", "public.t", "What was ordered")
ROWS = (TABLE, COLUMN, GRANT, OWNER, COMMENT)
SCHEMA = schema_of(15, ROWS)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
keys = st.tuples(st.sampled_from(LAYERS), st.sampled_from(["table", "column"]), texts)
schemas = st.dictionaries(keys, texts, max_size=8).map(
    lambda found: schema_of(15, [(*key, text) for key, text in found.items()])
)


def settled(definition: str, kind: str = "constraint", layer: str = "structure") -> str:
    """The definition that a schema has for this row."""
    return schema_of(15, [(layer, kind, "public.t.c", definition)]).objects[0].definition


# ---- fingerprints --------------------------------------------------------------------------------


def test_a_fingerprint_is_the_digest_of_the_layers_rows_as_json_lines() -> None:
    line = '["comments","table","public.t","What was ordered"]\n'
    assert SCHEMA.fingerprints["comments"] == hashlib.sha256(line.encode()).hexdigest()
    assert set(SCHEMA.fingerprints) == set(LAYERS)


def test_a_fingerprint_stays_what_it_is_in_receipts_that_exist() -> None:
    rows = [*ROWS, ("structure", "function", "public.é()", 'SELECT "a\\b"\n')]
    assert schema_of(15, rows).fingerprints["structure"] == (
        "5dfb833c574fb0ae0c91f3bb19957ffd4cbd8553a0fe748e39f372d9c9cc5cee"
    )


def test_the_order_of_the_rows_does_not_matter() -> None:
    assert schema_of(15, reversed(ROWS)) == SCHEMA


def test_a_row_changes_the_fingerprint_of_its_own_layer_only() -> None:
    other = schema_of(15, [*ROWS, ("owners", "view", "public.v", "reader")])
    apart = {layer for layer in LAYERS if other.fingerprints[layer] != SCHEMA.fingerprints[layer]}
    assert apart == {"owners"}


@given(schemas, schemas)
def test_fingerprints_are_equal_when_nothing_differs(one: Schema, other: Schema) -> None:
    for layer in LAYERS:
        equal = one.fingerprints[layer] == other.fingerprints[layer]
        assert equal == (not changes(one, other, [layer]))


@given(schemas)
def test_a_schema_that_is_read_from_its_own_rows_is_the_same(schema: Schema) -> None:
    assert schema_of(15, schema.objects) == schema


# ---- differences ---------------------------------------------------------------------------------


def test_changes_are_told_with_both_definitions_in_order() -> None:
    after = schema_of(
        15, [TABLE, (*COLUMN[:3], "bigint NOT NULL"), OWNER, ("structure", "index", "public.i", "")]
    )
    assert changes(SCHEMA, after) == (
        Change("comments", "table", "public.t", "What was ordered", None),
        Change("privileges", "table", "public.t", "reader=r/crm_owner", None),
        Change("structure", "column", "public.t.id", "integer NOT NULL", "bigint NOT NULL"),
        Change("structure", "index", "public.i", None, ""),
    )


def test_only_the_layers_that_are_asked_for_are_compared() -> None:
    after = schema_of(15, [TABLE, COLUMN, OWNER])
    assert changes(SCHEMA, after, ["structure", "owners"]) == ()
    require_same(SCHEMA, after, ["structure", "owners"], "database crm")
    assert [change.layer for change in changes(SCHEMA, after, ["comments"])] == ["comments"]


@given(schemas, schemas)
def test_a_schema_and_its_changes_are_the_other_schema(before: Schema, after: Schema) -> None:
    assert before.changed(changes(before, after)) == after


def test_a_change_that_removes_what_is_not_there_removes_nothing() -> None:
    assert SCHEMA.changed([Change("structure", "view", "public.v", "AS SELECT 1", None)]) == SCHEMA


def test_schemas_of_different_majors_are_refused() -> None:
    with pytest.raises(SchemaDiffersError) as refusal:
        changes(SCHEMA, replace(SCHEMA, major=16))
    assert str(refusal.value) == "a schema of PostgreSQL 15 cannot be compared with one of 16"
    assert refusal.value.exit_code == 35


def test_another_schema_is_refused_with_the_objects() -> None:
    with pytest.raises(SchemaDiffersError) as refusal:
        require_same(SCHEMA, schema_of(15, [TABLE, COLUMN, OWNER]), LAYERS, "database crm")
    assert str(refusal.value) == "database crm: 2 objects differ"
    assert refusal.value.detail == (
        "  table public.t (comments)\n"
        "    expected What was ordered\n"
        "    found    no comment\n"
        "  table public.t (privileges)\n"
        "    expected reader=r/crm_owner\n"
        "    found    the default"
    )


def test_one_object_that_differs_is_told_in_the_singular() -> None:
    with pytest.raises(SchemaDiffersError, match=r"^database crm: 1 object differs$"):
        require_same(SCHEMA, schema_of(15, ROWS[1:]), LAYERS, "database crm")


# ---- what people read ----------------------------------------------------------------------------


def test_a_definition_is_shown_on_one_line_and_without_control_characters() -> None:
    change = Change("structure", "view", "public.v", "AS\n SELECT 1\x1b[31m;", "")
    assert describe([change], "before", "after") == (
        "  view public.v (structure)\n    before   AS SELECT 1 [31m;\n    after    present"
    )


def test_long_definitions_are_shown_from_shortly_before_they_differ() -> None:
    old = " ".join(f"line {number};" for number in range(1000))
    shown = describe(
        [Change("structure", "function", "public.f()", old, old.replace("500", "5xx"))]
    )
    _, before, after = shown.splitlines()
    assert before.startswith("    expected … ")
    assert before.endswith(" …")
    assert "line 499; line 500; line 501;" in before
    assert "line 499; line 5xx; line 501;" in after
    assert max(len(before), len(after)) < MAX_SHOWN + 20


def test_a_long_definition_that_only_one_has_is_shown_from_its_start() -> None:
    shown = describe([Change("structure", "function", "public.f()", None, "x" * 1000)])
    assert shown.splitlines()[1:] == [
        "    expected no such object",
        f"    found    {'x' * MAX_SHOWN} …",
    ]


def test_a_long_definition_that_goes_on_is_shown_where_it_goes_on() -> None:
    old = "x" * 1000
    shown = describe([Change("structure", "view", "public.v", old, f"{old} LIMIT 5")])
    assert shown.splitlines()[2] == f"    found    … {'x' * (MAX_SHOWN // 4)} LIMIT 5"


def test_many_changes_are_counted_and_the_first_are_shown() -> None:
    many = [Change("structure", "table", f"t{number}", "", None) for number in range(MAX_NAMED + 2)]
    lines = describe(many).splitlines()
    assert len(lines) == 3 * MAX_NAMED + 1
    assert lines[-1] == "  … and 2 more"


# ---- what a restore words differently ------------------------------------------------------------
# As PostgreSQL 15 wrote them before and after pg_dump | pg_restore.

RESTORED = {
    "strings for a varchar": (
        "= ANY ((ARRAY['a, b'::character varying, 'it''s'::character varying])::text[])",
        "= ANY (ARRAY[('a, b'::character varying)::text, ('it''s'::character varying)::text])",
    ),
    "columns and calls among them": (
        "(ARRAY[other, COALESCE(\"x, y\", 'q, r'::character varying)])::text[]",
        "ARRAY[(other)::text, (COALESCE(\"x, y\", 'q, r'::character varying))::text]",
    ),
    "networks": (
        "((net)::inet = ANY ((ARRAY['10.0.0.0/8'::cidr])::inet[]))",
        "((net)::inet = ANY (ARRAY[('10.0.0.0/8'::cidr)::inet]))",
    ),
    "BETWEEN as the first of several": (
        "CHECK ((((a >= 1) AND (a <= 2)) AND b))",
        "CHECK (((a >= 1) AND (a <= 2) AND b))",
    ),
    "a list of columns": (
        "CHECK ((((id)::numeric = a) OR (id = 1)) OR (id = c)) NO INHERIT",
        "CHECK (((id)::numeric = a) OR (id = 1) OR (id = c)) NO INHERIT",
    ),
    "one in the other": (
        "WHERE (((((a = 1) OR (a = b)) OR (a = c)) AND (d >= 1)) AND (d <= 2))",
        "WHERE (((a = 1) OR (a = b) OR (a = c)) AND (d >= 1) AND (d <= 2))",
    ),
}
KEPT = [
    "CHECK ((((a = 1) AND b) OR c OR d))",
    "CHECK ((a AND (b AND c) AND (d OR e)))",
    "CHECK (((a AND b AND c) = (d AND e)))",
    "CHECK ((((a = 1) AND b)::text = 'x ((y AND z) AND z)'::text))",
    "CHECK ((code = '(ARRAY[a])::text[]'::text))",
    'CHECK ((code = "(ARRAY[a])::text[]"))',
    "DEFAULT (ARRAY['a'::text, 'b'::text])",
    "CHECK ((code = ANY ((ARRAY[(ARRAY['a'::text])[1]])::character varying[])))",
    "a) AND ((b AND c) AND (d",
    "((a AND b AND 'c",
]


@pytest.mark.parametrize("before, after", RESTORED.values(), ids=RESTORED.keys())
def test_a_restored_definition_is_the_same(before: str, after: str) -> None:
    assert settled(before) == after
    assert settled(after) == after


@pytest.mark.parametrize("definition", KEPT)
def test_other_definitions_are_kept_as_they_are(definition: str) -> None:
    assert settled(definition) == definition


def test_the_source_of_a_function_and_a_comment_are_kept_as_they_are() -> None:
    text = "SELECT (ARRAY[a])::text[] WHERE ((a AND b) AND c)"
    for kind in ("function", "procedure"):
        source = f"CREATE OR REPLACE {kind.upper()} f()\n LANGUAGE sql\nAS ${kind}${text}${kind}$"
        assert settled(source, kind) == source
    assert settled(text, layer="comments") == text


def test_the_parsed_body_of_a_function_is_worded_as_a_restore_does() -> None:
    head = "CREATE OR REPLACE FUNCTION f()\n LANGUAGE sql\nBEGIN ATOMIC\n SELECT "
    assert settled(f"{head}(ARRAY[a])::text[];\nEND", "function") == (
        f"{head}ARRAY[(a)::text];\nEND"
    )


atoms = st.sampled_from(["a", "(b = 1)", "(c = ' AND (('::text)", '"x) OR "', "(NOT d)"])
expressions = st.recursive(
    atoms,
    lambda inner: st.tuples(st.sampled_from([" AND ", " OR "]), st.lists(inner, min_size=2)).map(
        lambda found: f"({found[0].join(found[1])})"
    ),
    max_leaves=12,
)


@given(expressions)
def test_an_expression_loses_parentheses_and_nothing_else(expression: str) -> None:
    found = settled(f"CHECK ({expression})")
    assert settled(found) == found
    bare = str.maketrans("", "", "()")
    assert found.translate(bare) == f"CHECK ({expression})".translate(bare)


@given(st.text("(ARY[]:text'\", AND OR)", max_size=60))
def test_any_text_is_settled_once_and_for_all(text: str) -> None:
    assert settled(settled(text)) == settled(text)


def test_deep_expressions_and_many_quotes_take_no_time_and_no_stack() -> None:
    deep = "(" * 5000 + "a" + " AND b)" * 5000
    assert settled(deep) == "(a" + " AND b" * 5000 + ")"
    for quotes in ("''" * 50_000, "'' " * 50_000 + "'", '"a""b"' * 20_000, "'a''b', " * 20_000):
        assert settled(f"(ARRAY[{quotes}") == f"(ARRAY[{quotes}"
