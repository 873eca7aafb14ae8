CREATE VIEW crm.customer_total AS
SELECT c.id, c.name, coalesce(sum(o.total) FILTER (WHERE o.status = 'paid'), 0) AS spent
FROM crm.customer AS c LEFT JOIN crm."order" AS o ON o.customer_id = c.id
GROUP BY c.id, c.name;
