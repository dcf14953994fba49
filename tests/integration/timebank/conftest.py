"""A time bank on a real PostgreSQL, spoken to over HTTP with real tokens."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

# The tests of a folder share modules; pytest imports each file on its own.
sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
sys.path.insert(0, str(Path(__file__).parent))

from bank_world import MIGRATIONS, Bank, settings_for
from tokens import ISSUER, key_set

from common import db
from common.auth import TokenVerifier
from timebank.app import create_app


@pytest.fixture
async def dsn(make_database: Callable[[str, Path], Awaitable[str]]) -> str:
    return await make_database("timebank", MIGRATIONS)


@pytest.fixture
async def owner(dsn: str) -> AsyncIterator[db.Connection]:
    """A connection as the owner of the database, past the service's role."""
    connection = await db.connect(dsn, name="test-owner")
    yield connection
    await connection.close()


@pytest.fixture
async def bank(dsn: str) -> AsyncIterator[Bank]:
    """Anna and Bruno live in Nantes, Chloé in Bourges."""
    app = create_app(settings_for(dsn))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.MockTransport(lambda _: httpx.Response(200, json=key_set()))
        ) as identity,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://timebank.test",
        ) as http,
    ):
        app.state.verifier = TokenVerifier(
            issuer=ISSUER, audience="timebank", jwks_url=f"{ISSUER}/jwks", http=identity
        )
        running = Bank(app, http, dsn, app.state.pool)
        for name, city in (("anna", "nantes"), ("bruno", "nantes"), ("chloe", "bourges")):
            await running.join(name, city)
        yield running
