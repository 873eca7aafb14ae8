CREATE TABLE crm."order" (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES crm.customer,
    ordered_at timestamptz NOT NULL DEFAULT now(),
    total numeric(12, 2) NOT NULL CHECK (total >= 0)
);

CREATE INDEX order_customer_id ON crm."order" (customer_id);
