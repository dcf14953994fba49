import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from access import projector
from access.settings import Settings
from common import db

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import access_world
from access_world import World


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the projector looks at every second, it looks at ten times as often."""
    monkeypatch.setattr(projector, "CHECK_EVERY_S", 0.1)
    monkeypatch.setattr(projector, "POLL_MS", 20)


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
    """A started API and empty servers; nothing is published, no worker runs."""
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
