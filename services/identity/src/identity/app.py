"""The wiring of the API process and of the worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
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
from identity.cards.routes import router as cards_router
from identity.consumers import GROUP, handlers
from identity.context import Context, build_context
from identity.directory.routes import router as directory_router
from identity.events import TOPICS
from identity.notices import sender
from identity.notices import service as notices
from identity.notices.channels import Mail, read_sender, read_smtp_url
from identity.notices.domain import Channel, ChannelName
from identity.notices.push import WebPush
from identity.notices.routes import router as notices_router
from identity.passes import service as passes
from identity.passes.routes import router as passes_router
from identity.privacy.routes import router as privacy_router
from identity.settings import IdentitySettings
from identity.tokens import OwnKeySet
from identity.vault import Vault

MIGRATIONS = Path(__file__).parent / "migrations"
HOUSEKEEPING_S = 60.0
EXPIRED_ROWS_MAX = 5_000
GUESTS_FORGOTTEN_MAX = 500


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
        routers=[
            routes.router,
            cards_router,
            passes_router,
            oauth_routes.router,
            directory_router,
            notices_router,
            privacy_router,
        ],
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


@asynccontextmanager
async def open_channels(settings: IdentitySettings, vault: Vault) -> AsyncIterator[sender.Channels]:
    """The ways out of the house that the settings open."""
    channels: dict[ChannelName, Channel] = {}
    if settings.smtp_url:
        channels["email"] = Mail(
            read_smtp_url(settings.smtp_url),
            password=settings.smtp_password.get_secret_value(),
            sender=read_sender(settings.mail_from),
            portal_url=settings.portal_url,
        )
    web_push = WebPush(vault.push_key, settings.push_contact) if settings.push_contact else None
    if web_push:
        channels["push"] = web_push
    try:
        yield channels
    finally:
        if web_push:
            await web_push.close()


async def work(settings: IdentitySettings, clock: Clock = utc_now) -> None:
    """Relay the outbox, hear of places and notices, send messages, rotate the signing keys and tidy
    up, until stopped."""
    vault = Vault(settings.key_secret.get_secret_value())
    pool = await db.create_pool(
        settings.database_url.get_secret_value(),
        name="identity-worker",
        max_size=settings.database_pool_max,
    )
    async with pool, open_channels(settings, vault) as channels:
        relay = Relay(settings, (*TOPICS, dead_letters(GROUP)), clock)
        consumer = Consumer(settings, pool, GROUP, handlers(settings, clock), clock)

        async def keep_house() -> None:
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
                    await notices.tidy_up(conn, now, rows_max=EXPIRED_ROWS_MAX)
                async with pool.acquire() as conn, conn.transaction():
                    await passes.forget_old_guests(conn, now, rows_max=GUESTS_FORGOTTEN_MAX)
                await asyncio.sleep(HOUSEKEEPING_S)

        async def missing() -> list[str]:
            await pool.fetchval("SELECT 1")
            return []

        await run_worker(
            settings,
            tasks={
                "relay": relay.run,
                "consumer": consumer.run,
                "sender": partial(sender.keep_sending, pool, channels, clock),
                "housekeeping": keep_house,
            },
            ready=missing,
        )
