"""The wiring of the API process and of the worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
from fastapi import FastAPI

from common import db, web
from common.auth import TokenVerifier
from common.clock import Clock, utc_now
from common.consumer import Consumer, dead_letters
from common.outbox import Relay
from common.worker import run_worker
from identity import keys, oauth_routes, routes, store
from identity.consumers import GROUP, HANDLERS
from identity.context import Context, build_context
from identity.directory.routes import router as directory_router
from identity.events import TOPICS
from identity.settings import IdentitySettings
from identity.tokens import OwnKeySet
from identity.vault import Vault

MIGRATIONS = Path(__file__).parent / "migrations"
HOUSEKEEPING_S = 60.0
EXPIRED_ROWS_MAX = 5_000


def create_app(settings: IdentitySettings, clock: Clock = utc_now) -> FastAPI:
    """The API. Nothing is opened before the lifespan begins."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pool = await db.create_pool(
            settings.database_url.get_secret_value(),
            name="identity-api",
            max_size=settings.database_pool_max,
        )
        async with pool:
            context = build_context(settings, pool, clock)
            await keys.ensure_key(pool, context.vault, clock())
            async with httpx.AsyncClient(transport=OwnKeySet(context.ring)) as http:
                app.state.context = context
                app.state.verifier = TokenVerifier(
                    issuer=settings.token_issuer,
                    audience="identity",
                    jwks_url=settings.jwks_url,
                    http=http,
                    clock=clock,
                )
                yield

    return web.create_app(
        title="Copass identity",
        version="1",
        description="Cities, members, roles, logins, access tokens and cards.",
        routers=[routes.router, oauth_routes.router, directory_router],
        lifespan=lifespan,
        ready=what_is_missing,
    )


async def what_is_missing(app: FastAPI) -> list[str]:
    """Ready when the database answers and a token could be signed."""
    context: Context = app.state.context
    await context.pool.fetchval("SELECT 1")
    try:
        await context.ring.signer()
    except keys.NoSigningKey:
        return ["signing key"]
    return []


def from_environment() -> FastAPI:
    """For uvicorn: the API with the settings of the environment."""
    return create_app(IdentitySettings())


async def work(settings: IdentitySettings, clock: Clock = utc_now) -> None:
    """Relay the outbox, hear of places, rotate the signing keys and tidy up, until stopped."""
    pool = await db.create_pool(
        settings.database_url.get_secret_value(),
        name="identity-worker",
        max_size=settings.database_pool_max,
    )
    async with pool:
        relay = Relay(settings, (*TOPICS, dead_letters(GROUP)), clock)
        consumer = Consumer(settings, pool, GROUP, HANDLERS, clock)

        async def keep_house() -> None:
            vault = Vault(settings.key_secret.get_secret_value())
            while True:
                now = clock()
                await keys.rotate_if_old(
                    pool,
                    vault,
                    rotate_after=timedelta(days=settings.key_rotation_days),
                    publish_ahead=settings.key_publish_ahead,
                    now=now,
                )
                async with pool.acquire() as conn:
                    await keys.delete_retired(conn, now)
                    await store.delete_expired(conn, now, rows_max=EXPIRED_ROWS_MAX)
                await asyncio.sleep(HOUSEKEEPING_S)

        async def missing() -> list[str]:
            await pool.fetchval("SELECT 1")
            return []

        await run_worker(
            settings,
            tasks={"relay": relay.run, "places": consumer.run, "housekeeping": keep_house},
            ready=missing,
        )
