"""deploy/compose/databases.sql, run on a real PostgreSQL as the postgres image runs it."""

import importlib
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from common.migrate import migrate
from copass import servers
from copass.servers import postgres_binaries

ROOT = Path(__file__).resolve().parents[3]
SERVICES = ("identity", "timebank", "access", "places")

StartServer = Callable[[servers.Server], Awaitable[servers.Running]]


def migrations_of(service: str) -> Path:
    (folder,) = map(Path, importlib.import_module(service).__path__)
    return folder / "migrations"


def create_databases(url: str) -> None:
    passwords = {f"{s.upper()}_DATABASE_PASSWORD": f"password-of-{s}" for s in SERVICES}
    done = subprocess.run(
        [
            str(postgres_binaries() / "psql"),
            *("-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-f"),
            str(ROOT / "deploy/compose/databases.sql"),
            url,
        ],
        env={**os.environ, **passwords},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


async def test_each_service_migrates_its_own_database_and_reaches_no_other(
    start_server: StartServer, server_folder: Path, unused_port: int
) -> None:
    server = await start_server(servers.postgres(server_folder, unused_port, "admin"))
    create_databases(server.url)

    def address(login: str, database: str) -> str:
        return f"postgresql://{login}:password-of-{login}@127.0.0.1:{unused_port}/{database}"

    for service in SERVICES:
        # The login of the deployment is no superuser: what a migration needs must be there.
        assert await migrate(address(service, service), service, migrations_of(service))
        for other in SERVICES:
            if other != service:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await asyncpg.connect(address(service, other))
