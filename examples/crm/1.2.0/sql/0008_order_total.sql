-- Wrong on purpose: the column is there since 1.0.0. Its release is refused, and nothing stays.
ALTER TABLE crm."order" ADD COLUMN total numeric(12, 2);
