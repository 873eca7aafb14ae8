-- The texts of the schema that a copy takes along: where each is, what it says, and whether that is
-- SQL. For PostgreSQL 14 to 18; search_path is pg_catalog, so that names are qualified.
--
-- Left out is what an extension or the ledger brings itself: nobody's value is in that.

WITH foreign_object AS (
    SELECT classid, objid FROM pg_depend
    WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
),
own_schema AS (
    SELECT oid FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'countersign')
),
relation AS (
    SELECT oid, oid::regclass::text AS name, relkind, relpartbound FROM pg_class
    WHERE relnamespace IN (SELECT oid FROM own_schema)
        AND ('pg_class'::regclass, oid) NOT IN (SELECT classid, objid FROM foreign_object)
),
own_type AS (
    SELECT oid, format_type(oid, NULL) AS name, typdefaultbin FROM pg_type
    WHERE typnamespace IN (SELECT oid FROM own_schema)
        AND ('pg_type'::regclass, oid) NOT IN (SELECT classid, objid FROM foreign_object)
),
routine AS (
    SELECT p.*, 'function ' || p.oid::regprocedure AS place, l.lanname
    FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
    WHERE p.pronamespace IN (SELECT oid FROM own_schema)
        AND ('pg_proc'::regclass, p.oid) NOT IN (SELECT classid, objid FROM foreign_object)
),
remark AS (
    SELECT 'comment on ' AS kind, classoid, objoid, objsubid, description AS text
    FROM pg_description
    WHERE objoid >= 16384 OR (classoid = 'pg_namespace'::regclass AND objoid = 2200
        AND description <> 'standard public schema')
    UNION ALL SELECT 'comment on ', classoid, objoid, 0, description FROM pg_shdescription
        WHERE classoid = 'pg_database'::regclass
        AND objoid = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL SELECT 'security label of ', classoid, objoid, objsubid, label FROM pg_seclabel
)
SELECT CASE WHEN a.attgenerated = '' THEN 'default of ' ELSE 'expression of ' END || r.name || '.'
        || quote_ident(a.attname),
    pg_get_expr(d.adbin, d.adrelid), true
FROM pg_attrdef AS d JOIN relation AS r ON r.oid = d.adrelid
JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
UNION ALL
SELECT 'default of ' || name, pg_get_expr(typdefaultbin, 0), true FROM own_type
WHERE typdefaultbin IS NOT NULL
UNION ALL
SELECT 'check ' || quote_ident(k.conname) || ' of ' || coalesce(r.name, t.name),
    pg_get_constraintdef(k.oid), true
FROM pg_constraint AS k LEFT JOIN relation AS r ON r.oid = k.conrelid
LEFT JOIN own_type AS t ON t.oid = k.contypid
WHERE k.contype = 'c' AND coalesce(r.oid, t.oid) IS NOT NULL
UNION ALL
SELECT 'view ' || name, pg_get_viewdef(oid), true FROM relation WHERE relkind IN ('v', 'm')
UNION ALL
SELECT 'rule ' || quote_ident(w.rulename) || ' of ' || r.name, pg_get_ruledef(w.oid), true
FROM pg_rewrite AS w JOIN relation AS r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN'
UNION ALL
-- What is no SQL, such as a body in Python, has constants of another form.
SELECT place, prosrc, lanname IN ('sql', 'plpgsql') FROM routine
WHERE lanname NOT IN ('internal', 'c')
UNION ALL
SELECT place, pg_get_function_sqlbody(oid), true FROM routine WHERE prosqlbody IS NOT NULL
UNION ALL
SELECT place, pg_get_expr(proargdefaults, 0), true FROM routine WHERE proargdefaults IS NOT NULL
UNION ALL
SELECT place, quote_literal(g.agginitval), true
FROM routine AS p JOIN pg_aggregate AS g ON g.aggfnoid = p.oid WHERE g.agginitval IS NOT NULL
UNION ALL
SELECT 'policy ' || quote_ident(p.polname) || ' of ' || r.name,
    concat_ws(E'\n', pg_get_expr(p.polqual, r.oid), pg_get_expr(p.polwithcheck, r.oid)), true
FROM pg_policy AS p JOIN relation AS r ON r.oid = p.polrelid
UNION ALL
SELECT 'bounds of ' || name, pg_get_expr(relpartbound, oid), true FROM relation
WHERE relpartbound IS NOT NULL
UNION ALL
SELECT 'partition key of ' || name, pg_get_partkeydef(oid), true FROM relation WHERE relkind = 'p'
UNION ALL
SELECT 'index ' || name, pg_get_indexdef(oid), true FROM relation WHERE relkind IN ('i', 'I')
UNION ALL
SELECT 'trigger ' || quote_ident(t.tgname) || ' of ' || r.name, pg_get_triggerdef(t.oid), true
FROM pg_trigger AS t JOIN relation AS r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL
SELECT 'statistics ' || quote_ident(stxname) || ' of ' || r.name, pg_get_statisticsobjdef(s.oid),
    true
FROM pg_statistic_ext AS s JOIN relation AS r ON r.oid = s.stxrelid
UNION ALL
SELECT 'label of ' || t.name, quote_literal(e.enumlabel), true
FROM pg_enum AS e JOIN own_type AS t ON t.oid = e.enumtypid
UNION ALL
SELECT m.kind || o.type || ' ' || o.identity, m.text, false
FROM remark AS m, pg_identify_object(m.classoid, m.objoid, m.objsubid) AS o
WHERE m.classoid NOT IN ('pg_largeobject'::regclass, 'pg_publication'::regclass,
        'pg_subscription'::regclass)
    AND (m.classoid, m.objoid) NOT IN (SELECT classid, objid FROM foreign_object)
    AND o.identity !~ '(^| on )countersign(\.|$)'
