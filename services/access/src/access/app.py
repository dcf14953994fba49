"""The only place where things are put together: settings → the API, settings → the worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI

from access import live_store, retention, store
from access.consumers import HANDLERS
from access.credentials import CredentialReader
from access.endpoint import TapsFirst
from access.events import HISTORY_GROUP, PROJECTION_GROUP
from access.operators.live import LiveTaps
from access.operators.routes import router as operators_router
from access.presence.routes import router as presence_router
from access.privacy import router as privacy_router
from access.projector import Projector
from access.redis_pipe import RedisError, RedisPipe
from access.routes import router
from access.settings import Settings
from access.snapshots import conflicts, follower
from access.snapshots import store as snapshot_store
from access.snapshots.routes import router as snapshot_router
from access.snapshots.service import Desk
from access.snapshots.signing import make_signer
from access.tap_relay import TapRelay
from common import db, web
from common.auth import TokenVerifier
from common.client import make_client
from common.clock import Clock, utc_now
from common.consumer import Consumer, dead_letters
from common.db import Pool
from common.outbox import Relay
from common.problems import on_database_busy
from common.worker import keep_running, run_worker
from copass_tap.ntag424 import load_keys

LOCKDOWNS_EVERY_S = 5.0
LOCKDOWNS_SINCE = timedelta(days=1)


def create_app(settings: Settings, clock: Clock = utc_now) -> FastAPI:
    """The API. Connections are made when it starts and closed when it stops."""
    card_keys = load_keys(settings.card_keys)
    reader = CredentialReader(settings.card_pepper.get_secret_value().encode(), card_keys)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.clock = clock
        app.state.settings = settings
        app.state.credentials = reader
        app.state.card_keys = card_keys
        app.state.signer = make_signer(settings.key_secret.get_secret_value())
        app.state.desk = Desk()
        app.state.pipe = RedisPipe(settings.redis_url.get_secret_value())
        app.state.live = LiveTaps(settings.redis_url.get_secret_value())
        app.state.pool = await db.create_pool(
            settings.database_url.get_secret_value(),
            name="access-api",
            max_size=settings.database_pool_max,
        )
        async with make_client() as http:
            app.state.verifier = TokenVerifier(
                issuer=settings.token_issuer,
                audience=settings.service,
                jwks_url=settings.jwks_url,
                http=http,
                clock=clock,
            )
            listening = asyncio.create_task(
                keep_running("snapshot news", lambda: listen(settings, app.state.desk))
            )
            yield
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        await app.state.live.close()
        await app.state.pool.close()
        await app.state.pipe.close()

    async def ready(app: FastAPI) -> list[str]:
        # Not the database: a tap is decided without it, but for that of a cryptographic card.
        return [] if await live_store.is_ready(app.state.pipe) else ["projection"]

    app = web.create_app(
        title="Copass access",
        version="1.0.0",
        description="Decides at the door.",
        routers=[operators_router, router, snapshot_router, presence_router, privacy_router],
        lifespan=lifespan,
        ready=ready,
    )
    app.add_exception_handler(RedisError, on_database_busy)
    # Around the framework's own middleware too, which add_middleware would put it into.
    app.middleware_stack = TapsFirst(
        app.build_middleware_stack(),
        live_of=lambda scope: (scope["app"].state.pipe, scope["app"].state.pool),
        reader=reader,
        clock=clock,
        is_traced=bool(settings.otlp_endpoint),
    )
    return app


def api() -> FastAPI:
    """The API as uvicorn makes it, with the settings of the environment."""
    return create_app(Settings())


async def worker(settings: Settings) -> None:
    """Project state, relay taps, write the history, until told to stop."""
    pool = await db.create_pool(
        settings.database_url.get_secret_value(),
        name="access-worker",
        max_size=settings.database_pool_max,
    )
    projector = Projector(settings, pool)
    history = Consumer(settings, pool, HISTORY_GROUP, HANDLERS)
    snapshots = Consumer(
        settings,
        pool,
        follower.SNAPSHOTS_GROUP,
        follower.HANDLERS,
        watch=follower.Progress(settings, pool, utc_now).watch,
    )
    groups = (HISTORY_GROUP, PROJECTION_GROUP, follower.SNAPSHOTS_GROUP)
    letters = [dead_letters(group) for group in groups]

    async def ready() -> list[str]:
        return [] if projector.is_caught_up else ["projection"]

    try:
        await run_worker(
            settings,
            tasks={
                "projection": projector.run,
                "taps": TapRelay(settings, pool).run,
                "history": history.run,
                "snapshots": lambda: follower.after_taps(snapshots, projector),
                "conflicts": lambda: conflicts.forget_for_ever(pool, utc_now),
                "outbox": Relay(settings, letters).run,
                "lockdowns": lambda: keep_lockdowns(settings, pool, utc_now),
                "retention": lambda: retention.keep_history(pool, utc_now),
            },
            ready=ready,
        )
    finally:
        await pool.close()


async def listen(settings: Settings, desk: Desk) -> None:
    """Wake the readers that wait for changes whenever the tables of snapshots change. Raises what
    failed; those who wait look by themselves meanwhile, less often."""
    conn = await db.connect(settings.database_url.get_secret_value(), name="access-api-news")
    try:
        lost = asyncio.Event()
        conn.add_termination_listener(lambda _: lost.set())
        await conn.add_listener(snapshot_store.CHANNEL, lambda *_: desk.tell())
        desk.tell()
        await lost.wait()
        raise ConnectionError("the connection to the database was lost")
    finally:
        await conn.close(timeout=2)


async def keep_lockdowns(settings: Settings, pool: Pool, clock: Clock) -> None:
    """See to it that Redis has every lockdown, also one set while Redis was away."""
    pipe = RedisPipe(settings.redis_url.get_secret_value())
    try:
        while True:
            async with pool.acquire() as conn:
                known = await store.lockdowns_since(conn, clock() - LOCKDOWNS_SINCE)
            await live_store.set_lockdowns(
                pipe, [(str(one.place_id), one.version, one.active) for one in known]
            )
            await asyncio.sleep(LOCKDOWNS_EVERY_S)
    finally:
        await pipe.close()
