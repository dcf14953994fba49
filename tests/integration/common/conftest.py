import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from common import db

sys.path.insert(0, str(Path(__file__).parent))

import plumbing


@pytest.fixture
async def config(
    make_database: Callable[[str, Path], Awaitable[str]],
    kafka_bootstrap: str,
    kafka_idempotent: bool,
    kafka_fetch_wait_ms: int,
    topic_prefix: str,
) -> plumbing.Settings:
    dsn = await make_database("plumbing", plumbing.MIGRATIONS)
    return plumbing.settings(
        dsn,
        kafka_bootstrap,
        topic_prefix,
        idempotent=kafka_idempotent,
        wait_ms=kafka_fetch_wait_ms,
    )


@pytest.fixture
async def pool(config: plumbing.Settings) -> AsyncIterator[db.Pool]:
    async with plumbing.pool_of(config.database_url.get_secret_value()) as pool:
        yield pool
