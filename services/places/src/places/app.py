"""The wiring of the API process and of the worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from common import db, web
from common.auth import TokenVerifier
from common.client import make_client
from common.clock import Clock, utc_now
from common.consumer import Consumer, dead_letters
from common.db import Pool
from common.logging import get_logger
from common.outbox import Relay
from common.worker import run_worker
from places import routes, service
from places.consumers import GROUP, HANDLERS
from places.events import TOPICS
from places.settings import PlacesSettings

MIGRATIONS = Path(__file__).parent / "migrations"

log = get_logger(__name__)


def create_app(settings: PlacesSettings, clock: Clock = utc_now) -> FastAPI:
    """The API. Nothing is opened before the lifespan begins."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pool = await db.create_pool(
            settings.database_url.get_secret_value(),
            name="places-api",
            max_size=settings.database_pool_max,
        )
        async with pool, make_client() as http:
            app.state.pool = pool
            app.state.clock = clock
            app.state.verifier = TokenVerifier(
                issuer=settings.token_issuer,
                audience=settings.service,
                jwks_url=settings.jwks_url,
                http=http,
                clock=clock,
            )
            yield

    return web.create_app(
        title="Copass places",
        version="1",
        description="Places, when they open, their doors and the readers on them.",
        routers=[routes.router],
        lifespan=lifespan,
        ready=what_is_missing,
    )


async def what_is_missing(app: FastAPI) -> list[str]:
    """Ready when the database answers."""
    pool: Pool = app.state.pool
    await pool.fetchval("SELECT 1")
    return []


def from_environment() -> FastAPI:
    """For uvicorn: the API with the settings of the environment."""
    return create_app(PlacesSettings())


async def refresh_for_ever(pool: Pool, clock: Clock, every_s: float) -> None:
    """Compile again, at once and then regularly, the hours that run short.

    What is due stands in the database: a worker that was stopped for days catches up when it
    starts, and two workers share the work. After its own midnight a place's hours reach 13 days,
    and so each place is compiled once a day, in its own time zone.
    """
    while True:
        total = 0
        while True:
            async with pool.acquire() as conn, conn.transaction():
                count = await service.refresh_hours(conn, clock())
            total += count
            if count < service.REFRESH_BATCH:
                break
        if total:
            log.info("hours_refreshed", places=total)
        await asyncio.sleep(every_s)


async def work(settings: PlacesSettings, clock: Clock = utc_now) -> None:
    """Relay the outbox, hear of cities and readers, keep the hours fresh, until stopped."""
    pool = await db.create_pool(
        settings.database_url.get_secret_value(),
        name="places-worker",
        max_size=settings.database_pool_max,
    )
    async with pool:
        relay = Relay(settings, (*TOPICS, dead_letters(GROUP)), clock)
        consumer = Consumer(settings, pool, GROUP, HANDLERS, clock)

        async def refresh() -> None:
            await refresh_for_ever(pool, clock, settings.refresh_every_s)

        async def missing() -> list[str]:
            await pool.fetchval("SELECT 1")
            return []

        await run_worker(
            settings,
            tasks={"relay": relay.run, "identity": consumer.run, "hours": refresh},
            ready=missing,
        )
