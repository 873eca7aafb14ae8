-- Which environment this database is: a refresh never replaces PRD, whatever it was told.
-- Run with the ledger, and for ledgers that were made before there was this table.

CREATE TABLE countersign.database (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    environment text NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE countersign.database IS 'One row: what this database is; a copy of it is given another one by its refresh';
COMMENT ON COLUMN countersign.database.single IS 'True: there is one row';
COMMENT ON COLUMN countersign.database.environment IS 'Environment, such as QAT or PRD, as the host file called it at first or the refresh later';
COMMENT ON COLUMN countersign.database.since IS 'When that was written';
REVOKE ALL ON countersign.database FROM PUBLIC;
