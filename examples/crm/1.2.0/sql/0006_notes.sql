CREATE TABLE crm.note (
    customer_id bigint NOT NULL REFERENCES crm.customer,
    written_at timestamptz NOT NULL DEFAULT now(),
    body text NOT NULL
);
