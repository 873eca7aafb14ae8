"""The releases of the acceptance tests: 1.0 and 1.1 are sound, the others vary them."""

from dataclasses import replace

from tests.developers import Developers, Draft, Files

FIRST: Files = {
    "app/bin/crm": "#!/bin/sh\necho 1.0\n",
    "app/VERSION": "1.0\n",
    "app/obsolete": "gone in 1.1\n",
    "sql/0001_customers.sql": "CREATE TABLE customer (id int PRIMARY KEY, name text);\n",
    "sql/0002_orders.sql": (
        "CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customer);\n"
    ),
    "sql/verify/tables.sql": "DO $$ BEGIN ASSERT to_regclass('orders') IS NOT NULL; END $$;\n",
}
SECOND: Files = {
    **{path: content for path, content in FIRST.items() if path != "app/obsolete"},
    "app/bin/crm": "#!/bin/sh\necho 1.1\n",
    "app/VERSION": "1.1\n",
    "app/new/naïve name.txt": "é\r\n",
    "sql/0003_totals.sql": "ALTER TABLE orders ADD COLUMN total numeric;\n",
    "sql/0004_notes.sql": "CREATE TABLE note (body text);\nINSERT INTO note VALUES ('a'), ('b');\n",
}
THIRD: Files = {
    **SECOND,
    "app/VERSION": "1.2\n",
    "sql/0005_more.sql": "CREATE TABLE more ();\n",
}


def first(developers: Developers) -> Draft:
    """Release 1.0."""
    return Draft("1.0", 2, FIRST, [developers.ada])


def second(developers: Developers) -> Draft:
    """Release 1.1, from nothing or from 1.0; build 1.0 before it."""
    return Draft("1.1", 3, SECOND, [developers.ada], starts=("empty", "1.0"))


def third(developers: Developers) -> Draft:
    """Release 1.2, from 1.1; build that before it."""
    return Draft("1.2", 4, THIRD, [developers.ada], starts=("1.1",))


def with_files(draft: Draft, label: str, files: Files) -> Draft:
    """The same release, kept under another label, with other files besides."""
    return replace(draft, label=f"-{label}", files={**draft.files, **files})
