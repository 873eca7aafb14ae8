-- One row for each object of the schema: layer, kind, name, definition.
SELECT 'structure', 'schema', quote_ident(nspname), '' FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'countersign')
