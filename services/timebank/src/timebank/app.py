"""The only wiring: builds the API and the worker from settings."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import asyncpg
from fastapi import FastAPI

from common import db
from common.auth import TokenVerifier
from common.client import make_client
from common.clock import Clock, utc_now
from common.consumer import Consumer, dead_letters
from common.events import Topic
from common.outbox import Relay
from common.web import create_app as create_edge
from common.worker import run_worker
from timebank import consumers
from timebank.audit.routes import router as audit_router
from timebank.batcher import RUNNERS_MAX
from timebank.board.exchanges.routes import router as exchanges_router
from timebank.board.listings.routes import router as listings_router
from timebank.board.worker import keep_board
from timebank.cities.away import Away, look_around, on_away
from timebank.cities.catching_up import keep_catching_up
from timebank.cities.routes import router as cities_router
from timebank.clearing.agreements.routes import router as agreements_router
from timebank.clearing.keys import Vault
from timebank.clearing.routes import router as clearing_router
from timebank.clearing.service import keep_clearing
from timebank.contributions.routes import router as contributions_router
from timebank.direct import DIRECT
from timebank.events import PUBLISHED
from timebank.holds.routes import router as holds_router
from timebank.holds.service import keep_expiring
from timebank.log.bundle import Bundles
from timebank.log.recall import keep_recalled
from timebank.log.routes import router as log_router
from timebank.log.service import keep_logging
from timebank.netting.routes import router as netting_router
from timebank.netting.service import keep_netting
from timebank.pledges.routes import router as pledges_router
from timebank.privacy.routes import router as privacy_router
from timebank.reconciliation.routes import router as reconciliation_router
from timebank.reconciliation.service import keep_reconciling
from timebank.rent.routes import router as rent_router
from timebank.routes import router
from timebank.rules.routes import router as rules_router
from timebank.service import LEDGER_SESSION, Ledger
from timebank.settings import Settings, read_settings
from timebank.solidarity.routes import router as solidarity_router
from timebank.standings.routes import router as standings_router
from timebank.standings.service import keep_evaluating
from timebank.statements.routes import router as statements_router
from timebank.verify import keep_checking


def create_app(settings: Settings | None = None, clock: Clock = utc_now) -> FastAPI:
    """The API. Without settings, those of the environment."""
    settings = (settings or read_settings()).for_app()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            make_client() as http,
            await db.create_pool(
                settings.database_url.get_secret_value(),
                name="timebank-api",
                max_size=settings.database_pool_max,
            ) as pool,
            await db.create_pool(
                settings.database_url.get_secret_value(),
                name="timebank-ledger",
                max_size=RUNNERS_MAX,
                settings=LEDGER_SESSION,
            ) as ledger_pool,
        ):
            app.state.pool = pool
            app.state.clock = clock
            app.state.ledger = Ledger(ledger_pool, clock)
            app.state.vault = vault_of(settings)
            app.state.overdue = timedelta(minutes=settings.overdue_minutes)
            app.state.away = Away(pool)
            app.state.bundles = Bundles(settings.database_url.get_secret_value())
            app.state.verifier = TokenVerifier(
                issuer=settings.token_issuer,
                audience=settings.service,
                jwks_url=settings.jwks_url,
                http=http,
                clock=clock,
            )
            yield
            await app.state.ledger.close()

    async def ready(app: FastAPI) -> list[str]:
        await app.state.pool.fetchval("SELECT 1 FROM book LIMIT 1")
        return []

    app = create_edge(
        title="Copass time bank",
        version="1",
        description="One book per city, in integer minutes. What is posted stays.",
        routers=[
            router,
            holds_router,
            statements_router,
            contributions_router,
            pledges_router,
            standings_router,
            rules_router,
            solidarity_router,
            rent_router,
            listings_router,
            exchanges_router,
            clearing_router,
            agreements_router,
            netting_router,
            reconciliation_router,
            log_router,
            cities_router,
            audit_router,
            privacy_router,
        ],
        lifespan=lifespan,
        ready=ready,
        direct=DIRECT,
    )
    app.add_exception_handler(asyncpg.ObjectNotInPrerequisiteStateError, on_away)
    return app


def vault_of(settings: Settings) -> Vault | None:
    """What opens the keys of our cities; None where clearing is off."""
    secret = settings.key_secret.get_secret_value()
    return Vault(secret) if secret else None


def topics_of(settings: Settings) -> tuple[Topic, ...]:
    """All that the worker publishes: also what its consumers give up on, or the relay would wait
    for a topic that nobody makes."""
    groups = (consumers.GROUP, consumers.CLEARING_GROUP)
    return (*PUBLISHED, *(dead_letters(settings.group(group)) for group in groups))


async def run(settings: Settings, clock: Clock = utc_now) -> None:
    """The worker: learns of cities and members, and publishes the outbox."""
    settings = settings.for_app()
    async with await db.create_pool(
        settings.database_url.get_secret_value(),
        name="timebank-worker",
        max_size=settings.database_pool_max,
    ) as pool:
        consumer = Consumer(
            settings,
            pool,
            settings.group(consumers.GROUP),
            consumers.handlers(clock, settings.serves),
            clock,
        )
        relay = Relay(settings, topics_of(settings), clock, settings.group(settings.service))
        clearing: dict[str, Callable[[], Awaitable[None]]] = {}
        vault = vault_of(settings)
        recalled = asyncio.Event()
        await look_around(pool, settings)
        if vault is not None:
            overdue = timedelta(minutes=settings.overdue_minutes)
            heard = consumers.clearing_handlers(vault, clock, overdue)
            group = settings.group(consumers.CLEARING_GROUP)
            ears = Consumer(settings, pool, group, heard, clock)
            clearing = {
                "clearing": partial(keep_clearing, pool, vault, clock),
                "clearing-consumer": ears.run,
                "netting": partial(
                    keep_netting,
                    pool,
                    vault,
                    clock,
                    settings.serves,
                    settings.netting_every_hours,
                ),
                "reconciliation": partial(
                    keep_reconciling,
                    pool,
                    vault,
                    clock,
                    settings.reconcile_every_minutes,
                    settings.overdue_minutes,
                ),
                "log-recall": partial(keep_recalled, settings, pool, recalled, clock),
                "arrivals": partial(keep_catching_up, settings, pool, vault, clock),
            }

        async def ready() -> list[str]:
            await pool.fetchval("SELECT 1")
            return [] if consumer.assigned else ["consumer"]

        await run_worker(
            settings,
            tasks={
                **clearing,
                "relay": relay.run,
                "consumer": consumer.run,
                "holds": partial(keep_expiring, pool, clock),
                "standings": partial(keep_evaluating, pool, clock),
                "board": partial(keep_board, pool, clock),
                "log": partial(
                    keep_logging,
                    settings.database_url.get_secret_value(),
                    pool,
                    vault,
                    clock,
                    recalled,
                ),
                "books": partial(
                    keep_checking,
                    settings.database_url.get_secret_value(),
                    pool,
                    clock,
                    settings.check_books_minutes,
                ),
            },
            ready=ready,
        )
