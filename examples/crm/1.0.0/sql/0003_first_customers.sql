INSERT INTO crm.customer (name) VALUES ('Çelik & Söhne'), ('Ōkami Trading'), ('Ünal');

INSERT INTO crm."order" (customer_id, total)
SELECT id, 100 * id FROM crm.customer;
