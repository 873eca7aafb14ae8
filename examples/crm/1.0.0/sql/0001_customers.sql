-- Customers, and nothing that can be derived from them.
CREATE SCHEMA crm;

CREATE TABLE crm.customer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL CHECK (name <> ''),
    email text NOT NULL UNIQUE,
    phone text,
    country char(2) NOT NULL,
    since date NOT NULL DEFAULT current_date
);

COMMENT ON TABLE crm.customer IS 'Somebody who has ordered at least once';
