ALTER TABLE crm."order" ADD COLUMN status text NOT NULL DEFAULT 'open'
    CHECK (status IN ('open', 'paid', 'cancelled'));

UPDATE crm."order" SET status = 'paid' WHERE total <= 200;
