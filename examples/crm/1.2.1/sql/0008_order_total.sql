-- Replaces the script of 1.2.0, which failed everywhere and so was never applied.
ALTER TABLE crm."order" ADD COLUMN discount numeric(12, 2) NOT NULL DEFAULT 0;
