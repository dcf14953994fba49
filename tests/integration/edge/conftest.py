"""A real access service behind a real port, for what runs beside a door."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from access.settings import Settings
from common import db
from copass import servers

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "access"))
sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import access_world
from access_world import World


@pytest.fixture
async def config(
    make_database: Callable[[str, Path], Awaitable[str]],
    redis_url: str,
    kafka_bootstrap: str,
    kafka_idempotent: bool,
    kafka_fetch_wait_ms: int,
    topic_prefix: str,
) -> Settings:
    dsn = await make_database("access", access_world.MIGRATIONS)
    return access_world.make_settings(
        dsn,
        redis_url,
        kafka_bootstrap,
        topic_prefix,
        idempotent=kafka_idempotent,
        wait_ms=kafka_fetch_wait_ms,
    )


@pytest.fixture
async def world(config: Settings) -> AsyncIterator[World]:
    pool = await db.create_pool(config.database_url.get_secret_value(), name="test", max_size=20)
    async with access_world.world_of(config, pool) as world:
        yield world
    await pool.close()


@pytest.fixture
async def open_world(world: World) -> AsyncIterator[World]:
    """A place and its reader, known to the API; the projector runs."""
    await world.publish(world.place(), world.reader())
    async with access_world.running(world.projector().run):
        await world.ready()
        yield world


class Server(uvicorn.Server):
    """Leaves the signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
async def access_url(open_world: World) -> AsyncIterator[str]:
    """The address of `open_world` on the network."""
    port = servers.unused_port()
    server = Server(
        uvicorn.Config(
            open_world.app,
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
        )
    )
    serving = asyncio.create_task(server.serve())
    await access_world.until(lambda: is_started(server))
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await serving


async def is_started(server: Server) -> bool:
    return server.started
