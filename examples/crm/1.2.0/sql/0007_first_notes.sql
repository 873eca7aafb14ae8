INSERT INTO crm.note (customer_id, body) SELECT id, 'Welcome' FROM crm.customer;
