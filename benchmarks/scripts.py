"""The scripts that are installed: small ones of four kinds, the same at every call."""

from collections.abc import Iterator

MANY = 1000
TABLE = """\
CREATE TABLE orders_{n} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer integer NOT NULL,
    total numeric(12, 2) NOT NULL DEFAULT 0 CHECK (total >= 0),
    note text
);
CREATE INDEX orders_{n}_customer ON orders_{n} (customer);
CREATE INDEX orders_{n}_note ON orders_{n} (lower(note)) WHERE note IS NOT NULL;
"""
ROWS = """\
-- First rows; nothing depends on them.
INSERT INTO orders_{n} (customer, total, note) VALUES (1, 10.50, 'first; with a semicolon');
INSERT INTO orders_{n} (customer, total, note) VALUES (2, 20.00, 'it''s second'), (3, 30, NULL);
INSERT INTO orders_{n} (customer, total) SELECT i, i * 1.5 FROM generate_series(4, 20) AS i;
UPDATE orders_{n} SET note = 'naïve' WHERE customer = 3;
"""
FUNCTION = """\
CREATE FUNCTION total_{n}(wanted integer) RETURNS numeric LANGUAGE plpgsql STABLE AS $body$
DECLARE
    found numeric;
BEGIN
    SELECT sum(total) INTO found FROM orders_{n} WHERE customer = wanted;
    RETURN coalesce(found, 0);
END;
$body$;
COMMENT ON FUNCTION total_{n} IS 'What a customer ordered';
"""
COLUMN = """\
ALTER TABLE orders_{n} ADD COLUMN state text NOT NULL DEFAULT 'open';
ALTER TABLE orders_{n} ADD CONSTRAINT known_state CHECK (state IN ('open', 'shipped', 'paid'));
COMMENT ON COLUMN orders_{n}.state IS 'How far the order is'
"""
"""It has no final semicolon, as many scripts have none."""

KINDS = (TABLE, ROWS, FUNCTION, COLUMN)


def scripts(count: int) -> dict[str, str]:
    """The first `count` scripts by file name, in the order in which they run."""
    return dict(_scripts(count))


def concatenated(texts: dict[str, str]) -> str:
    """All scripts as one file for psql, each statement ended."""
    return "\n".join(text if text.endswith(";\n") else f"{text};\n" for text in texts.values())


def _scripts(count: int) -> Iterator[tuple[str, str]]:
    for number in range(count):
        table, kind = divmod(number, len(KINDS))
        yield f"{number + 1:04}.sql", KINDS[kind].format(n=f"{table:04}")
