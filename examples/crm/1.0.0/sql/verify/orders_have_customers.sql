-- Runs inside the release's transaction, before COMMIT: an exception rolls the release back.
DO $$
BEGIN
    IF EXISTS (SELECT FROM crm."order" WHERE customer_id NOT IN (SELECT id FROM crm.customer)) THEN
        RAISE EXCEPTION 'an order has no customer';
    END IF;
END $$;
