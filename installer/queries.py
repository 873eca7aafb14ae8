"""What `installer.database` asks the server, schema-qualified: whatever search_path is.

So are operators where PostgreSQL has none for the very types, such as name and text: it would take
one of a script's that fits them better (PostgreSQL, "Operator Type Resolution").

Queries in bytes go past psycopg's cursors, with PostgreSQL's own parameters.
"""

ADVISORY_LOCK = 0x636F756E74657273  # "counters" in ASCII: one install at a time in a database

FIND_FUNCTION = {
    name: b"SELECT oid, ctid FROM pg_catalog.pg_proc "
    b"WHERE oid = 'countersign.%b'::pg_catalog.regprocedure::pg_catalog.oid" % signature
    for name, signature in {
        "run_script": b"run_script(text[])",
        "insert_rows": b"insert_rows(text,text[])",
    }.items()
}
# Called by the login role between parts of a script, whose search_path may have its own operators
# before PostgreSQL's, and whose temporary types come before them in any case.
CALL_FUNCTION = {
    "run_script": b"""
SELECT countersign.run_script($1::pg_catalog.text[]), pg_catalog.pg_current_xact_id()
FROM pg_catalog.pg_proc WHERE oid OPERATOR(pg_catalog.=) $2::pg_catalog.oid
    AND ctid OPERATOR(pg_catalog.=) $3::pg_catalog.tid
""",
    "insert_rows": b"""
SELECT countersign.insert_rows($1::pg_catalog.text, $2::pg_catalog.text[]),
    pg_catalog.pg_current_xact_id()
FROM pg_catalog.pg_proc WHERE oid OPERATOR(pg_catalog.=) $3::pg_catalog.oid
    AND ctid OPERATOR(pg_catalog.=) $4::pg_catalog.tid
""",
}
DROP_FUNCTIONS = (
    b"DROP FUNCTION countersign.run_script(text[]), countersign.insert_rows(text, text[])"
)
RESET_SESSION = b"RESET ALL; DEALLOCATE ALL; CLOSE ALL; DISCARD TEMP"
# COMMIT runs the queries of cursors WITH HOLD, and triggers that were deferred again when all were
# settled, as the login role. So there is no such cursor, and such a trigger cannot write. What is
# committed is on the disk before anyone is told, also where the database's owner would not wait.
BEFORE_COMMIT = b"""
SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off';
CLOSE ALL; SET TRANSACTION READ ONLY
"""
SUITABLE = """
SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery(),
    pg_catalog.current_setting('wal_level'),
    pg_catalog.quote_ident(pg_catalog.current_database()),
    pg_catalog.quote_ident(login.rolname), pg_catalog.quote_ident(%(owner)s),
    login.rolsuper, pg_catalog.pg_has_role(login.oid, owner.oid, 'MEMBER'),
    owner.rolsuper, pg_catalog.pg_has_role(owner.oid, login.oid, 'MEMBER'),
    pg_catalog.has_function_privilege(
        login.oid, 'pg_catalog.pg_create_restore_point(text)', 'EXECUTE'),
    (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(r.rolname), ', ' ORDER BY r.rolname)
        FROM pg_catalog.pg_roles AS r WHERE pg_catalog.pg_has_role(owner.oid, r.oid, 'MEMBER')
        AND (r.rolsuper OR r.rolcreaterole OR r.rolname IN ('pg_execute_server_program',
            'pg_read_server_files', 'pg_write_server_files', 'pg_write_all_data'))),
    (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(e.evtname), ', ' ORDER BY e.evtname)
        FROM pg_catalog.pg_event_trigger AS e JOIN pg_catalog.pg_proc AS p ON p.oid = e.evtfoid
        WHERE e.evtenabled <> 'D' AND pg_catalog.pg_has_role(owner.oid, p.proowner, 'MEMBER'))
FROM pg_catalog.pg_roles AS login
LEFT JOIN pg_catalog.pg_roles AS owner ON owner.rolname = %(owner)s
WHERE login.rolname = session_user
"""
# Within a transaction that holds the lock itself, so that nobody gets it in between.
HOLD_ON = "SELECT pg_catalog.pg_advisory_unlock(%s), pg_catalog.pg_try_advisory_lock(%s)"
RESTORE_POINT = "SELECT pg_catalog.pg_create_restore_point(%s)::text"
LEDGER_IS_OURS = """
SELECT owner.rolname = session_user AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_class WHERE relnamespace = n.oid AND relowner <> n.nspowner)
FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS owner ON owner.oid = n.nspowner
WHERE n.nspname = 'countersign'
"""
HAS_ENVIRONMENT = "SELECT pg_catalog.to_regclass('countersign.database') IS NOT NULL"
# The first to write it is right: a copy that is told what it is says so until it is copied anew.
KEEP_ENVIRONMENT = (
    b"INSERT INTO countersign.database (environment) VALUES ($1) ON CONFLICT DO NOTHING"
)
IDENTITY = b"""
SELECT system_identifier, pg_catalog.current_setting('server_version')
FROM pg_catalog.pg_control_system()
"""
RELATIONS = b"""
SELECT pg_catalog.json_object_agg(c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname))
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname OPERATOR(pg_catalog.!~) '^pg_'
    AND n.nspname NOT IN ('information_schema', 'countersign')
"""
# The modes from the weakest to the strongest (PostgreSQL, "Table-Level Locks"). A relation that was
# dropped meanwhile has no name here any more.
LOCKS = b"""
SELECT pg_catalog.json_agg(pg_catalog.json_build_array(oid, name, mode)) FROM (
    SELECT DISTINCT ON (l.relation) l.relation AS oid, l.mode, CASE
        WHEN n.nspname OPERATOR(pg_catalog.!~) '^pg_'
            AND n.nspname NOT IN ('information_schema', 'countersign')
        THEN pg_catalog.format('%I.%I', n.nspname, c.relname) END AS name
    FROM pg_catalog.pg_locks AS l
    LEFT JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
    LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted
        AND l.database = (SELECT oid FROM pg_catalog.pg_database
                          WHERE datname = pg_catalog.current_database())
    ORDER BY l.relation, pg_catalog.array_position(ARRAY['AccessShareLock', 'RowShareLock',
        'RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock',
        'ExclusiveLock', 'AccessExclusiveLock'], l.mode) DESC
) AS held
"""
SCRIPTS = """
SELECT script, script_digest FROM countersign.ledger
WHERE product = %s AND event IN ('script applied', 'script adopted')
"""
# Of scripts that are not applied as a whole: nothing is left to be done of the others.
STATEMENTS = """
SELECT script, script_digest, statement, event FROM countersign.ledger AS l
WHERE product = %s AND statement IS NOT NULL AND NOT EXISTS (
    SELECT FROM countersign.ledger AS whole WHERE whole.product = l.product
    AND whole.script = l.script AND whole.event IN ('script applied', 'script adopted'))
ORDER BY id
"""
# Online scripts of a release that comes after the newest one, and was not applied itself.
AHEAD = """
WITH own AS (SELECT * FROM countersign.ledger WHERE product = %s)
SELECT version, script FROM own WHERE event = 'script applied'
AND id > coalesce((SELECT max(id) FROM own
    WHERE event IN ('release applied', 'release adopted')), 0)
AND manifest NOT IN (SELECT manifest FROM own WHERE event = 'release applied') ORDER BY id
"""
SCRIPTS_OF = """
SELECT script, script_digest, milliseconds, rows FROM countersign.ledger
WHERE manifest = %s AND event = 'script applied' ORDER BY id
"""
UNLOCK = "SELECT pg_catalog.pg_advisory_unlock(%s)"
RELEASES = """
SELECT version, sequence, manifest FROM countersign.ledger
WHERE product = %s AND event IN ('release applied', 'release adopted')
ORDER BY sequence DESC, id DESC
"""
NEWEST_RELEASE = """
SELECT manifest FROM countersign.ledger WHERE event = 'release applied' ORDER BY id DESC LIMIT 1
"""
HISTORY = """
SELECT * FROM countersign.ledger WHERE product = %(product)s::text OR %(product)s::text IS NULL
ORDER BY id
"""
BEGIN_READING = b"BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
# The columns in the order of `installer.ledger_chain.COLUMNS`, each as it is hashed, and the hash.
LEDGER = """
DECLARE countersign_ledger NO SCROLL CURSOR FOR
SELECT id, previous, pg_catalog.to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    event, product, version, sequence, manifest, script, script_digest, statement, milliseconds,
    rows, signers, environment, host, package, installer, detail, hash
FROM countersign.ledger ORDER BY id
"""
NEXT_ROWS = "FETCH 1000 FROM countersign_ledger"
COPIED = """
SELECT pg_catalog.to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
FROM countersign.database WHERE environment = %s
"""
# In one value: psycopg takes as long for thousands of rows as the server does to find them.
OBJECTS = """
SELECT json_agg(json_build_array(layer, kind, name, definition)) FROM (%s) AS object
"""
LOCK_HOLDER = """
SELECT pg_catalog.format('pid %%s (%%s, user %%s, since %%s)', a.pid, a.application_name,
    a.usename, a.xact_start)
FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND (l.classid::bigint << 32) + l.objid::bigint = %s
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
"""
BLOCKERS = r"""
SELECT pg_catalog.format('pid %%s (%%s): %%s', pid, pg_catalog.concat_ws(', ',
    pg_catalog.concat('user ', usename), nullif(application_name, ''),
    pg_catalog.concat('since ', pg_catalog.date_trunc('second', xact_start))),
    CASE query WHEN '<insufficient privilege>' THEN 'only pg_read_all_stats sees what it runs'
    ELSE pg_catalog.left(pg_catalog.regexp_replace(query, '\s+', ' ', 'g'), 120) END)
FROM pg_catalog.pg_stat_activity WHERE pid = ANY(pg_catalog.pg_blocking_pids(%s)) ORDER BY pid
"""
