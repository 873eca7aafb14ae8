"""Statements that lock tables, and what is said of each: for the rules, and for a real server.

They are about the tables of SCHEMA. A table that is locked more weakly than SHARE, and not read, is
not named.
"""

from packager.locks import Mode, Work

Claims = dict[str, tuple[Mode, Work]]

SCHEMA = """
CREATE SCHEMA s;
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION same() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION other() RETURNS float VOLATILE LANGUAGE sql AS 'SELECT pg_catalog.random()';
CREATE TABLE customers (id int PRIMARY KEY);
CREATE TABLE orders (
    id int NOT NULL, customer int, name varchar(10), total int, parent int,
    day date DEFAULT 'today', certain int CONSTRAINT certain CHECK (certain IS NOT NULL),
    CONSTRAINT old CHECK (id > 0), CONSTRAINT one UNIQUE (id),
    CONSTRAINT fk FOREIGN KEY (customer) REFERENCES customers
);
CREATE TABLE s.items (id int);
CREATE TABLE spare (id int NOT NULL, loose int);
CREATE UNIQUE INDEX spare_id ON spare (id);
CREATE UNIQUE INDEX spare_loose ON spare (loose);
CREATE INDEX orders_total ON orders (total);
CREATE TABLE parts (id int) PARTITION BY LIST (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 (id int);
CREATE TABLE parts_3 (id int NOT NULL CHECK (id = 3));
CREATE TABLE parent (id int);
CREATE TABLE child (id int);
CREATE TABLE heir () INHERITS (parent);
CREATE VIEW v AS SELECT id FROM orders;
CREATE MATERIALIZED VIEW m AS SELECT id FROM orders;
CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION quiet();
CREATE RULE r AS ON DELETE TO orders DO NOTHING;
CREATE POLICY p ON orders;
INSERT INTO customers VALUES (1);
INSERT INTO orders VALUES (1, 1, 'a', 1, 1, 'today', 1);
INSERT INTO spare VALUES (1, 1);
ALTER TABLE orders ADD CONSTRAINT later CHECK (total > 0) NOT VALID;
ALTER TABLE orders ADD CONSTRAINT kin FOREIGN KEY (parent) REFERENCES orders (id) NOT VALID;
"""


def _on(table: str, mode: Mode, work: Work = Work.NONE) -> Claims:
    return {table: (mode, work)}


def _all(work: Work = Work.NONE, table: str = "orders") -> Claims:
    """Nobody reads or writes the table."""
    return _on(table, Mode.ACCESS_EXCLUSIVE, work)


_CUSTOMERS = _on("customers", Mode.SHARE_ROW_EXCLUSIVE)
_WRITERS = _on("orders", Mode.SHARE_ROW_EXCLUSIVE)
_ADD = "ALTER TABLE orders ADD COLUMN x"
_CHECK = "ALTER TABLE orders ADD CONSTRAINT c CHECK (total > 0)"
_KEY = "ALTER TABLE orders ADD CONSTRAINT c FOREIGN KEY (customer) REFERENCES customers"

STATEMENTS: dict[str, Claims] = {
    # Columns.
    f"{_ADD} int": _all(),
    f"{_ADD} int DEFAULT 1": _all(),
    f"{_ADD} int NOT NULL DEFAULT 1": _all(),
    f"{_ADD} timestamptz DEFAULT now()": _all(),
    f"{_ADD} timestamptz DEFAULT current_timestamp": _all(),
    f"{_ADD} float DEFAULT random()": _all(Work.REWRITE),
    f"{_ADD} uuid DEFAULT gen_random_uuid()": _all(Work.REWRITE),
    f"{_ADD} int DEFAULT same()": _all(Work.REWRITE_IF_VOLATILE),
    f"{_ADD} float DEFAULT 1 + other()": _all(Work.REWRITE_IF_VOLATILE),
    f"{_ADD} int CHECK (x > 0)": _all(Work.SCAN),
    f"{_ADD} int DEFAULT 1 CHECK (x > 0)": _all(Work.SCAN),
    "ALTER TABLE s.items ADD COLUMN x int NOT NULL": _all(Work.SCAN, "s.items"),
    f"{_ADD} int REFERENCES customers": _all() | _CUSTOMERS,
    f"{_ADD} int DEFAULT 1 REFERENCES customers": _all(Work.SCAN) | _CUSTOMERS,
    f"{_ADD} int UNIQUE": _all(Work.INDEX),
    "ALTER TABLE s.items ADD COLUMN x int PRIMARY KEY": _all(Work.INDEX, "s.items"),
    f"{_ADD} serial": _all(Work.REWRITE),
    f"{_ADD} int GENERATED ALWAYS AS IDENTITY": _all(Work.REWRITE),
    f"{_ADD} int GENERATED ALWAYS AS (id + 1) STORED": _all(Work.REWRITE),
    "ALTER TABLE orders DROP COLUMN total": _all(),
    "ALTER TABLE orders ALTER COLUMN total SET DEFAULT 1": _all(),
    "ALTER TABLE orders ALTER COLUMN day DROP DEFAULT": _all(),
    "ALTER TABLE orders ALTER COLUMN total SET NOT NULL": _all(Work.VERIFY),
    "ALTER TABLE orders ALTER COLUMN certain SET NOT NULL": _all(Work.VERIFY),
    "ALTER TABLE orders ALTER COLUMN id DROP NOT NULL": _all(),
    "ALTER TABLE orders ALTER COLUMN total TYPE bigint": _all(Work.REWRITE_UNLESS_SAME),
    "ALTER TABLE orders ALTER COLUMN name TYPE text": _all(Work.REWRITE_UNLESS_SAME),
    "ALTER TABLE orders ALTER COLUMN total SET STATISTICS 100": {},
    "ALTER TABLE orders ALTER COLUMN total SET (n_distinct = 5)": {},
    "ALTER TABLE orders ALTER COLUMN total RESET (n_distinct)": {},
    "ALTER TABLE orders ALTER COLUMN name SET STORAGE PLAIN": _all(),
    "ALTER TABLE orders ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY": _all(),
    "ALTER TABLE IF EXISTS orders ADD COLUMN IF NOT EXISTS x int": _all(),
    # Constraints.
    _CHECK: _all(Work.SCAN),
    f"{_CHECK} NOT VALID": _all(),
    _KEY: _on("orders", Mode.SHARE_ROW_EXCLUSIVE, Work.SCAN) | _CUSTOMERS,
    f"{_KEY} NOT VALID": _WRITERS | _CUSTOMERS,
    "ALTER TABLE orders ADD FOREIGN KEY (parent) REFERENCES orders (id)": _on(
        "orders", Mode.SHARE_ROW_EXCLUSIVE, Work.SCAN
    ),
    "ALTER TABLE orders ADD CONSTRAINT c UNIQUE (total)": _all(Work.INDEX),
    "ALTER TABLE orders ADD PRIMARY KEY (id)": _all(Work.INDEX),
    "ALTER TABLE orders ADD EXCLUDE USING btree (total WITH =)": _all(Work.INDEX),
    "ALTER TABLE spare ADD CONSTRAINT c UNIQUE USING INDEX spare_id": _all(table="spare"),
    "ALTER TABLE spare ADD PRIMARY KEY USING INDEX spare_id": _all(Work.VERIFY, "spare"),
    "ALTER TABLE spare ADD PRIMARY KEY USING INDEX spare_loose": _all(Work.VERIFY, "spare"),
    "ALTER TABLE orders VALIDATE CONSTRAINT later": _on(
        "orders", Mode.SHARE_UPDATE_EXCLUSIVE, Work.SCAN
    ),
    "ALTER TABLE orders VALIDATE CONSTRAINT kin": _on(
        "orders", Mode.SHARE_UPDATE_EXCLUSIVE, Work.SCAN
    ),
    "ALTER TABLE orders DROP CONSTRAINT old": _all(),
    "ALTER TABLE orders ALTER CONSTRAINT fk DEFERRABLE": _all(),
    # The whole table.
    "ALTER TABLE orders OWNER TO crm_owner": _all(),
    "ALTER TABLE orders SET UNLOGGED": _all(Work.REWRITE),
    "ALTER TABLE orders SET ACCESS METHOD heap2": _all(Work.REWRITE),
    "ALTER TABLE orders SET TABLESPACE elsewhere": _all(Work.REWRITE),
    "ALTER TABLE orders SET (fillfactor = 50)": {},
    "ALTER TABLE orders SET (fillfactor = 50, user_catalog_table = true)": _all(),
    "ALTER TABLE orders RESET (fillfactor)": {},
    "ALTER TABLE orders RESET (user_catalog_table)": _all(),
    "ALTER TABLE orders CLUSTER ON orders_total": {},
    "ALTER TABLE orders SET WITHOUT CLUSTER": {},
    "ALTER TABLE orders DISABLE TRIGGER t": _WRITERS,
    "ALTER TABLE orders DISABLE TRIGGER USER": _WRITERS,
    "ALTER TABLE orders DISABLE TRIGGER ALL": _WRITERS,
    "ALTER TABLE orders ENABLE ALWAYS TRIGGER t": _WRITERS,
    "ALTER TABLE orders ENABLE REPLICA TRIGGER t": _WRITERS,
    "ALTER TABLE orders DISABLE RULE r": _all(),
    "ALTER TABLE orders ENABLE ROW LEVEL SECURITY": _all(),
    "ALTER TABLE orders REPLICA IDENTITY FULL": _all(),
    "ALTER TABLE child INHERIT parent": _all(table="child"),
    "ALTER TABLE heir NO INHERIT parent": _all(table="heir"),
    "ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES IN (2)": _all(Work.VERIFY, "parts_2"),
    "ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES IN (3)": _all(Work.VERIFY, "parts_3"),
    "ALTER TABLE parts DETACH PARTITION parts_1": _all(table="parts") | _all(table="parts_1"),
    "ALTER TABLE orders ADD COLUMN x int, ALTER COLUMN total SET NOT NULL": _all(Work.VERIFY),
    "ALTER TABLE spare ADD COLUMN x int, ADD FOREIGN KEY (id) REFERENCES customers": (
        _all(Work.SCAN, "spare") | _CUSTOMERS
    ),
    "ALTER VIEW v SET (security_barrier = true)": _all(table="v"),
    "ALTER VIEW v ALTER COLUMN id SET DEFAULT 1": _all(table="v"),
    "ALTER INDEX orders_total SET (fillfactor = 50)": {},
    # Names.
    "ALTER TABLE orders RENAME TO o": _all(),
    "ALTER TABLE orders RENAME COLUMN total TO sum": _all(),
    "ALTER TABLE orders RENAME CONSTRAINT old TO new": _all(),
    "ALTER TRIGGER t ON orders RENAME TO u": _all(),
    "ALTER POLICY p ON orders RENAME TO u": _all(),
    "ALTER RULE r ON orders RENAME TO u": _all(),
    "ALTER VIEW v RENAME TO w": _all(table="v"),
    "ALTER INDEX orders_total RENAME TO i": {},
    "ALTER FUNCTION same() RENAME TO alike": {},
    "ALTER TABLE orders SET SCHEMA s": _all(),
    "ALTER FUNCTION same() SET SCHEMA s": {},
    # What belongs to a table.
    "CREATE POLICY q ON orders": _all(),
    "ALTER POLICY p ON orders USING (true)": _all(),
    "DROP POLICY p ON orders": _all(),
    "CREATE RULE q AS ON UPDATE TO orders DO NOTHING": _all(),
    "DROP RULE r ON orders": _all(),
    "CREATE TRIGGER u AFTER INSERT ON s.items FOR EACH ROW EXECUTE FUNCTION quiet()": _on(
        "s.items", Mode.SHARE_ROW_EXCLUSIVE
    ),
    "DROP TRIGGER t ON orders": _all(),
    "CREATE INDEX ON orders (day)": _on("orders", Mode.SHARE, Work.INDEX),
    "REINDEX TABLE orders": _on("orders", Mode.SHARE, Work.REINDEX),
    "CREATE STATISTICS st ON id, total FROM orders": {},
    "COMMENT ON TABLE orders IS 'x'": {},
    # Tables and views.
    "CREATE TABLE n (id int)": {},
    "CREATE TABLE n (id int REFERENCES customers)": _CUSTOMERS,
    "CREATE TABLE n (id int, FOREIGN KEY (id) REFERENCES customers)": _CUSTOMERS,
    "CREATE TABLE n PARTITION OF parts FOR VALUES IN (4)": _all(table="parts"),
    "CREATE TABLE n (LIKE orders)": {},
    "CREATE TABLE n () INHERITS (parent)": {},
    "CREATE TABLE n AS SELECT * FROM orders": {},
    "CREATE VIEW n AS SELECT id FROM orders": {},
    "CREATE OR REPLACE VIEW v AS SELECT id FROM orders": _all(table="v"),
    "REFRESH MATERIALIZED VIEW m": _all(Work.REWRITE, "m"),
    "CLUSTER orders USING orders_total": _all(Work.REWRITE),
    "DROP TABLE s.items": _all(table="s.items"),
    "DROP VIEW v": _all(table="v"),
    "DROP MATERIALIZED VIEW m": _all(table="m"),
    "DROP FUNCTION same()": {},
    "TRUNCATE s.items, spare": _all(table="s.items") | _all(table="spare"),
    "LOCK TABLE orders, spare IN SHARE MODE": (
        _on("orders", Mode.SHARE) | _on("spare", Mode.SHARE)
    ),
    "LOCK TABLE orders IN EXCLUSIVE MODE": _on("orders", Mode.EXCLUSIVE),
    "LOCK TABLE orders IN ROW EXCLUSIVE MODE": {},
    "LOCK orders": _all(),
    "INSERT INTO s.items VALUES (2)": {},
}
"""For each statement, the tables that it locks: how, and what it does with their rows."""

OF_AN_INDEX: dict[str, Claims] = {
    "DROP INDEX orders_total": _all(table="orders_total"),
    "REINDEX INDEX orders_total": _on("orders_total", Mode.SHARE, Work.REINDEX),
}
"""As STATEMENTS, but it is the index that has the name."""

ALONE: dict[str, Claims] = {
    "VACUUM FULL orders": _all(Work.REWRITE),
    "VACUUM (FULL, ANALYZE) orders": _all(Work.REWRITE),
    "VACUUM FULL": {},  # of whatever tables there are
    "CREATE INDEX CONCURRENTLY i ON orders (day)": {},
    "DROP INDEX CONCURRENTLY orders_total": {},
    "REINDEX TABLE CONCURRENTLY orders": {},
    "REFRESH MATERIALIZED VIEW CONCURRENTLY m": {},
    "VACUUM orders": {},
    "CLUSTER": {},
}
"""Statements that cannot run in a transaction."""
