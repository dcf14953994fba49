"""The connection pool. The timeouts bound every statement: nothing waits for ever."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

# asyncpg's classes are generic for the type checker only.
if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]
    Conn = Connection | PoolConnectionProxy[Any]
    Pool = asyncpg.Pool[Any]
else:
    Connection = asyncpg.Connection
    Conn = Connection | PoolConnectionProxy
    Pool = asyncpg.Pool

# The database is away, restarting, full, or too busy for this now. The same may well succeed later,
# and whether a commit that met one of these stands is unknown until somebody looks.
SERVER_AWAY: tuple[type[Exception], ...] = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What asyncpg says of a connection that was cut between two steps of a transaction.
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
)

STATEMENT_TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 4_000


async def prepare_connection(connection: Connection) -> None:
    """Let json and jsonb columns carry Python values."""
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(
            kind,
            schema="pg_catalog",
            encoder=lambda value: orjson.dumps(value).decode(),
            decoder=orjson.loads,
        )


async def connect(dsn: str, *, name: str) -> Connection:
    """One connection outside any pool: for locks held on it, and for LISTEN.

    A pool's reset would silently release both.
    """
    connection = await asyncpg.connect(
        dsn, timeout=10, server_settings={"application_name": name, "timezone": "UTC"}
    )
    await prepare_connection(connection)
    return connection


async def leave_as_it_is(_connection: Connection) -> None:
    """Called as a connection goes back into the pool, an open transaction having been rolled back.

    The driver would ask the server to forget locks, settings and listeners: a journey for each use
    of a connection, and there are none. Ours end with the transaction, or are held on a connection
    of their own (`connect`).
    """


async def create_pool(
    dsn: str, *, name: str, max_size: int = 10, settings: Mapping[str, str] | None = None
) -> Pool:
    """A pool of at most `max_size` connections, JSON ready, every statement bounded in time.

    `settings` are the server's, for every session of the pool.
    """
    return await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=max_size,
        timeout=10,
        command_timeout=STATEMENT_TIMEOUT_MS / 1000 + 5,
        init=prepare_connection,
        reset=leave_as_it_is,
        server_settings={
            "application_name": name,
            "timezone": "UTC",
            "statement_timeout": str(STATEMENT_TIMEOUT_MS),
            "lock_timeout": str(LOCK_TIMEOUT_MS),
            "idle_in_transaction_session_timeout": "30000",
            **(settings or {}),
        },
    )
