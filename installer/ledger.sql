-- The ledger: what was applied to this database, by whom, from which release. Format 1.
-- Run once, by the login role that the host file names, which then owns it. Scripts of releases run
-- as another role, which has no right here.

CREATE SCHEMA IF NOT EXISTS countersign;
COMMENT ON SCHEMA countersign IS 'Countersign''s ledger, format 1: append-only, hash-chained';

CREATE TABLE countersign.ledger (
    id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    event text NOT NULL CHECK (event IN ('script applied', 'script adopted',
        'statement started', 'statement applied',
        'release applied', 'release adopted', 'release failed')),
    product text NOT NULL,
    version text NOT NULL,
    sequence bigint NOT NULL,
    manifest text NOT NULL CHECK (manifest ~ '^[0-9a-f]{64}$'),
    script text,
    script_digest text CHECK (script_digest ~ '^[0-9a-f]{64}$'),
    statement integer,
    milliseconds bigint,
    rows bigint,
    signers text[] NOT NULL,
    environment text NOT NULL,
    host text NOT NULL,
    package text NOT NULL,
    installer text NOT NULL,
    detail text,
    previous text NOT NULL,
    hash text NOT NULL UNIQUE,
    CHECK ((event LIKE 'release %') = (script IS NULL)),
    CHECK ((event LIKE 'statement %') = (statement IS NOT NULL)),
    CHECK ((script IS NULL) = (script_digest IS NULL))
);
CREATE UNIQUE INDEX ledger_script_once ON countersign.ledger (product, script)
    WHERE script IS NOT NULL AND statement IS NULL;

COMMENT ON TABLE countersign.ledger IS 'One row for each script and release applied or adopted, each statement of online scripts, and each release refused';
COMMENT ON COLUMN countersign.ledger.id IS 'Rises by one, without gaps';
COMMENT ON COLUMN countersign.ledger.at IS 'When the row was written; a script''s run ended then at the latest';
COMMENT ON COLUMN countersign.ledger.event IS 'What happened; adopted: declared to stand already, not run';
COMMENT ON COLUMN countersign.ledger.product IS 'Name of the product, as its release calls it';
COMMENT ON COLUMN countersign.ledger.version IS 'Version of the release';
COMMENT ON COLUMN countersign.ledger.sequence IS 'The release''s place in the product''s history';
COMMENT ON COLUMN countersign.ledger.manifest IS 'SHA-256 of the signed manifest.json, in hexadecimal';
COMMENT ON COLUMN countersign.ledger.script IS 'Path of the script in the release';
COMMENT ON COLUMN countersign.ledger.script_digest IS 'SHA-256 of the very bytes that ran';
COMMENT ON COLUMN countersign.ledger.statement IS 'Which statement of an online script, from 1; null for the script as a whole';
COMMENT ON COLUMN countersign.ledger.milliseconds IS 'How long the script, or the whole transaction, took';
COMMENT ON COLUMN countersign.ledger.rows IS 'Rows that the script''s statements processed, by PostgreSQL''s count';
COMMENT ON COLUMN countersign.ledger.signers IS 'Who signed: role, name and primary key fingerprint of each';
COMMENT ON COLUMN countersign.ledger.environment IS 'Environment of the host, such as QAT or PRD';
COMMENT ON COLUMN countersign.ledger.host IS 'Host that ran the installer';
COMMENT ON COLUMN countersign.ledger.package IS 'Package that carried the release';
COMMENT ON COLUMN countersign.ledger.installer IS 'Version of the installer';
COMMENT ON COLUMN countersign.ledger.detail IS 'Why a release failed, or why it was adopted';
COMMENT ON COLUMN countersign.ledger.previous IS 'Hash of the row before, empty in the first';
COMMENT ON COLUMN countersign.ledger.hash IS 'countersign.hash_of this row';

CREATE FUNCTION countersign.hash_of(entry countersign.ledger) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN encode(sha256(convert_to(jsonb_build_array(entry.id, entry.previous,
    to_char(entry.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), entry.event,
    entry.product, entry.version, entry.sequence, entry.manifest, entry.script,
    entry.script_digest, entry.statement, entry.milliseconds, entry.rows, entry.signers, entry.environment,
    entry.host, entry.package, entry.installer, entry.detail)::text, 'UTF8')), 'hex');
COMMENT ON FUNCTION countersign.hash_of IS 'SHA-256 over a row''s columns, previous included, as a JSON array';

CREATE FUNCTION countersign.append(entries jsonb) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entry countersign.ledger;
    head countersign.ledger;
    fields jsonb;
BEGIN
    -- One writer at a time, so that the chain does not fork; readers are not held up.
    LOCK TABLE countersign.ledger IN SHARE ROW EXCLUSIVE MODE;
    SELECT * INTO head FROM countersign.ledger ORDER BY id DESC LIMIT 1;
    FOR fields IN SELECT value FROM jsonb_array_elements(entries) LOOP
        entry := jsonb_populate_record(NULL::countersign.ledger, fields);
        entry.id := coalesce(head.id, 0) + 1;
        entry.at := clock_timestamp();
        entry.previous := coalesce(head.hash, '');
        entry.hash := countersign.hash_of(entry);
        INSERT INTO countersign.ledger VALUES (entry.*);
        head := entry;
    END LOOP;
    RETURN head.hash;
END $$;
COMMENT ON FUNCTION countersign.append IS 'Adds rows, given as a JSON array of objects, to the end of the chain';

CREATE FUNCTION countersign.first_broken() RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN (SELECT min(id) FROM (SELECT entry.id, entry.hash = countersign.hash_of(entry)
    AND entry.previous = coalesce(lag(entry.hash) OVER chain, '')
    AND entry.id = row_number() OVER chain AS sound
    FROM countersign.ledger AS entry WINDOW chain AS (ORDER BY entry.id)) AS checked
    WHERE NOT sound);
COMMENT ON FUNCTION countersign.first_broken IS 'The first row that does not fit the chain; null where all do';

CREATE FUNCTION countersign.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'countersign.ledger is append-only: % refused', TG_OP;
END $$;
COMMENT ON FUNCTION countersign.refuse_change IS 'Refuses UPDATE, DELETE and TRUNCATE, to the owner too';
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON countersign.ledger
    FOR EACH STATEMENT EXECUTE FUNCTION countersign.refuse_change();

REVOKE ALL ON SCHEMA countersign FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA countersign FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA countersign FROM PUBLIC;
