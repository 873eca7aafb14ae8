INSERT INTO crm.customer (name, email, country) VALUES
    ('Çelik & Söhne', 'office@celik.example', 'AT'),
    ('Ōkami Trading', 'okami@trading.example', 'JP'),
    ('Ünal', 'post@unal.example', 'TR');

INSERT INTO crm."order" (customer_id, total)
SELECT id, 100 * id FROM crm.customer;
