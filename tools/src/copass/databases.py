"""The databases of the services: made once, brought up to date at each start."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from copass.network import SERVICES, Secrets
from copass.processes import StartError

# Works on the ledger without owning it; see the time bank's first migration.
TIMEBANK_APP_ROLE = "timebank_app"


async def make_databases(admin_url: str, keys: Secrets) -> None:
    """A role and a database for each service; a service cannot connect to another's.

    Passwords are set at each start, so that secrets.json is what counts.
    """
    import asyncpg

    admin = await asyncpg.connect(admin_url, timeout=10)
    try:
        roles = {row[0] for row in await admin.fetch("SELECT rolname FROM pg_roles")}
        databases = {row[0] for row in await admin.fetch("SELECT datname FROM pg_database")}
        if TIMEBANK_APP_ROLE not in roles:
            await admin.execute(f"CREATE ROLE {TIMEBANK_APP_ROLE} NOLOGIN")
        for service in SERVICES:
            # Names of ours and hexadecimal passwords: nothing here needs quoting.
            verb = "ALTER" if service in roles else "CREATE"
            password = keys.database_password(service)
            await admin.execute(f"{verb} ROLE {service} LOGIN PASSWORD '{password}'")
            if service not in databases:
                await admin.execute(f"CREATE DATABASE {service} OWNER {service}")
            await admin.execute(f"REVOKE CONNECT, TEMPORARY ON DATABASE {service} FROM PUBLIC")
        await admin.execute(f"GRANT {TIMEBANK_APP_ROLE} TO timebank")
    finally:
        await admin.close()


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise StartError(f"the package {name} is not installed: run `make install`")
    return Path(spec.origin).parent


def migrations_digest() -> str:
    """Changes when any migration of any service, or the runner, changes."""
    digest = hashlib.sha256()
    folders = [_package(name) for name in ("common", *SERVICES)]
    files = [folders[0] / "migrate.py"]
    files += [file for folder in folders for file in sorted(folder.glob("migrations/*.sql"))]
    for file in files:
        digest.update(str(file).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
