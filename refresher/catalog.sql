-- What a refresh asks the source's catalog, a query for each kind. A line `-- [kind]` begins one.
--
-- Rules:
-- - Queries for PostgreSQL 14 to 18 that any login role may run; search_path is pg_catalog.
-- - What an extension made belongs to it: its configuration tables have a query of their own.
-- - The schema countersign is a schema like any other: the ledger is copied along.

-- [tables]
SELECT c.oid, n.nspname, c.relname, greatest(c.reltuples, 0)::bigint,
    CASE WHEN c.relkind = 'r' THEN pg_table_size(c.oid) ELSE 0 END,
    CASE WHEN c.relkind = 'r' THEN pg_relation_size(c.oid) / current_setting('block_size')::int
        ELSE 0 END,
    c.relkind = 'p', c.relispartition, p.parents, k.columns
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT array_agg(i.inhparent::bigint ORDER BY i.inhseqno) AS parents
    FROM pg_inherits AS i WHERE i.inhrelid = c.oid
) AS p ON true
LEFT JOIN LATERAL (
    SELECT array_agg(a.attname::text ORDER BY u.place) AS columns
    FROM pg_index AS i, unnest(i.indkey::smallint[]) WITH ORDINALITY AS u (number, place)
    JOIN pg_attribute AS a ON a.attnum = u.number
    WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid
        AND u.place <= i.indnkeyatts
) AS k ON true
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid
        AND refclassid = 'pg_extension'::regclass AND deptype = 'e')
ORDER BY n.nspname, c.relname

-- [columns]
WITH RECURSIVE below AS (
    SELECT oid, oid AS base, typtypmod, typtype, typbasetype FROM pg_type
    UNION ALL
    SELECT b.oid, t.oid, CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE b.typtypmod END,
        t.typtype, t.typbasetype
    FROM below AS b JOIN pg_type AS t ON b.typtype = 'd' AND t.oid = b.typbasetype
),
modifier AS (
    SELECT a.attrelid, a.attnum, b.base,
        CASE WHEN a.atttypmod <> -1 THEN a.atttypmod ELSE b.typtypmod END AS typmod
    FROM pg_attribute AS a JOIN below AS b ON b.oid = a.atttypid AND b.typtype <> 'd'
    WHERE a.attnum > 0 AND NOT a.attisdropped
)
SELECT c.oid, a.attname, format_type(a.atttypid, a.atttypmod), format_type(m.base, NULL),
    CASE WHEN m.base IN ('varchar'::regtype, 'bpchar'::regtype) AND m.typmod > 4
        THEN m.typmod - 4 END,
    a.attnotnull, a.attgenerated <> '', a.attidentity <> '',
    EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisunique
        AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN modifier AS m ON m.attrelid = a.attrelid AND m.attnum = a.attnum
WHERE c.relkind IN ('r', 'p') AND c.oid = ANY (%(tables)s::oid[])
ORDER BY c.oid, a.attnum

-- [foreign keys]
-- The last column of a key with PERIOD (PostgreSQL 18) need not be equal to what it references, and is
-- left out: all rows that the others lead to come along.
SELECT k.conname, k.conrelid, k.confrelid,
    ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (number, place)
        JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.number
        WHERE u.place <= t.columns ORDER BY u.place),
    ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (number, place)
        JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.number
        WHERE u.place <= t.columns ORDER BY u.place),
    EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = k.conrelid
        AND a.attnum = ANY (k.conkey) AND NOT a.attnotnull)
FROM pg_constraint AS k, LATERAL (SELECT cardinality(k.conkey)
    - coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false)::integer AS columns) AS t
WHERE k.contype = 'f' AND k.conparentid = 0
    AND k.conrelid = ANY (%(tables)s::oid[]) AND k.confrelid = ANY (%(tables)s::oid[])
ORDER BY k.conrelid, k.conname

-- [sequences]
SELECT n.nspname, c.relname, tn.nspname, t.relname, a.attname
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
    AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
LEFT JOIN pg_class AS t ON t.oid = d.refobjid
LEFT JOIN pg_namespace AS tn ON tn.oid = t.relnamespace
LEFT JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = 'pg_class'::regclass
        AND e.objid = c.oid AND e.refclassid = 'pg_extension'::regclass AND e.deptype = 'e')
ORDER BY n.nspname, c.relname

-- [extension tables]
-- What CREATE EXTENSION makes and users then fill: pg_extension_config_dump() has named it.
SELECT n.nspname, c.relname, c.relkind = 'S', u.condition, pg_table_size(c.oid),
    ARRAY(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = c.oid
        AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum)
FROM pg_extension AS e, unnest(e.extconfig, e.extcondition) AS u (oid, condition)
JOIN pg_class AS c ON c.oid = u.oid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'S') AND n.nspname <> 'pg_catalog'
ORDER BY n.nspname, c.relname

-- [roles]
-- Those that own something, or have a right to it. The role that made the cluster is pinned, and
-- so is in pg_shdepend never.
SELECT rolname FROM pg_roles WHERE oid IN (
    SELECT refobjid FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass
        AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION SELECT relowner FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    UNION SELECT nspowner FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
) AND rolname !~ '^pg_' ORDER BY rolname

-- [extensions]
SELECT extname, extversion FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY extname

-- [views]
-- Which views and materialized views read which other ones.
SELECT c.oid, n.nspname, c.relname, c.relkind = 'm', c.relispopulated,
    ARRAY(SELECT DISTINCT d.refobjid::bigint FROM pg_rewrite AS r
        JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
            AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid
        WHERE r.ev_class = c.oid)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY n.nspname, c.relname

-- [left out]
SELECT 'publication ' || quote_ident(pubname) FROM pg_publication
UNION ALL
SELECT 'subscription ' || quote_ident(subname) FROM pg_subscription
    WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL
SELECT 'rows of foreign table ' || oid::regclass FROM pg_class WHERE relkind = 'f'
ORDER BY 1

-- [database]
-- The locale's columns have other names, and there are more of them, from one version to the next.
SELECT pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
    coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'),
    coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
    (SELECT count(*) FROM pg_largeobject_metadata)
FROM pg_database AS d WHERE d.datname = current_database()

-- [unreadable]
-- What the login role would see in part, or not at all.
SELECT 'table ' || c.oid::regclass || CASE
    WHEN NOT has_table_privilege(c.oid, 'SELECT') THEN ': no right to read it'
    ELSE ': a policy hides rows of it; ALTER ROLE ' || quote_ident(session_user) || ' BYPASSRLS' END
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'S', 'm') AND n.nspname !~ '^pg_'
    AND n.nspname <> 'information_schema'
    AND (NOT has_table_privilege(c.oid, 'SELECT') OR row_security_active(c.oid))
UNION ALL
SELECT 'schema ' || quote_ident(nspname) || ': no right to use it' FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    AND NOT has_schema_privilege(oid, 'USAGE')
UNION ALL
SELECT 'large object ' || l.oid || ': no right to read it' FROM pg_largeobject_metadata AS l
WHERE NOT pg_has_role(l.lomowner, 'USAGE') AND NOT EXISTS (SELECT FROM aclexplode(l.lomacl) AS a
    WHERE a.privilege_type = 'SELECT'
    AND (a.grantee = 0 OR CASE WHEN a.grantee <> 0 THEN pg_has_role(a.grantee, 'USAGE') END))
ORDER BY 1
