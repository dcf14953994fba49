"""Plain SQL migrations, forward only.

Files are named `0001_what_it_does.sql` and run once each, in name order, each in its own
transaction, with its SHA-256 kept: an applied file that changed afterwards is refused. A first line
`-- no-transaction` runs the file outside a transaction (one `CREATE INDEX CONCURRENTLY`).
An advisory lock lets several processes migrate at once: one works, the others wait.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common import db

MIGRATION_LOCK = 7_203_001
PLUMBING = Path(__file__).parent / "migrations"


class MigrationError(Exception):
    """A migration was changed after it ran, or a file that ran is missing."""


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        return not self.sql.startswith("-- no-transaction")


def read_migrations(owner: str, directory: Path) -> Iterator[Migration]:
    """The files of one folder, in the order in which they run, named `owner/file.sql`."""
    for path in sorted(directory.glob("*.sql")):
        yield Migration(name=f"{owner}/{path.name}", sql=path.read_text(encoding="utf-8"))


async def migrate(dsn: str, service: str, directory: Path) -> list[str]:
    """Bring a database up to date: the plumbing's tables first, then the service's.

    Returns the names of the migrations applied by this call, in order.
    Raises MigrationError when an applied file changed or vanished.
    """
    wanted = [*read_migrations("common", PLUMBING), *read_migrations(service, directory)]
    connection = await db.connect(dsn, name=f"{service}-migrate")
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migration ("
            " name text PRIMARY KEY, sha256 text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        rows = await connection.fetch("SELECT name, sha256 FROM schema_migration")
        applied = {row["name"]: row["sha256"] for row in rows}
        check_history(applied, wanted)
        pending = [migration for migration in wanted if migration.name not in applied]
        for migration in pending:
            await apply(connection, migration)
        return [migration.name for migration in pending]
    finally:
        await connection.close(timeout=5)


def check_history(applied: dict[str, str], wanted: list[Migration]) -> None:
    """Refuse a history that these files did not make."""
    known = {migration.name: migration.sha256 for migration in wanted}
    for name, sha256 in applied.items():
        if name not in known:
            raise MigrationError(f"{name} was applied to this database, but its file is missing")
        if known[name] != sha256:
            raise MigrationError(f"{name} was changed after it was applied: add a new file instead")


async def apply(connection: db.Connection, migration: Migration) -> None:
    record = "INSERT INTO schema_migration (name, sha256) VALUES ($1, $2)"
    if not migration.in_transaction:
        await connection.execute(migration.sql)
        await connection.execute(record, migration.name, migration.sha256)
        return
    async with connection.transaction():
        await connection.execute(
            "SET LOCAL lock_timeout = '4s'; SET LOCAL statement_timeout = '60s'"
        )
        await connection.execute(migration.sql)
        await connection.execute(record, migration.name, migration.sha256)
