"""kill -9 of the commands that move a city, wherever it hits: the old time bank is in charge, or
the new one, or the same command goes on; never both, and nothing is lost."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import timebank
from common import db
from common.events import Topic
from common.ids import new_id
from common.kafka import ensure_topics
from timebank.cities.package import WrongPackage, open_package
from timebank.clearing.keys import Vault
from timebank.clearing.service import ensure_keys
from timebank.domain import Leg, TransferRequest
from timebank.events import CHECKPOINTS, CITY_KEYS, COSIGNATURES
from timebank.log import service as log_service
from timebank.service import Submission, post_transfers
from timebank.settings import Settings, as_app_role
from timebank.verify import verify_books

pytestmark = [pytest.mark.faults, pytest.mark.whole, pytest.mark.timeout(600)]

MIGRATIONS = Path(timebank.__file__).parent / "migrations"
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
SECRET = "s" * 32
TRANSFERS = 3_000
AT_ONCE = 500
KILLS = 6


@pytest.fixture
async def world(
    bank: Any,
    make_database: Callable[[str, Path], Awaitable[str]],
    kafka_bootstrap: str,
    kafka_idempotent: bool,
    kafka_fetch_wait_ms: int,
    topic_prefix: str,
) -> tuple[Any, str, dict[str, object]]:
    """Nantes with thousands of transfers, logged and signed; where it is to go; the settings."""
    vault = Vault(SECRET)
    async with bank.pool.acquire() as conn, conn.transaction():
        await ensure_keys(conn, vault, NOW)
    for _ in range(TRANSFERS // AT_ONCE):
        batch = [
            Submission(
                TransferRequest(
                    new_id(), True, None, bank.steward.for_the_city("nantes"),
                    (Leg(bank.anna, -1), Leg(bank.bruno, 1))
                    if number % 2 else (Leg(bank.bruno, -1), Leg(bank.anna, 1)),
                ),
                None,
            )
            for number in range(AT_ONCE)
        ]  # fmt: skip
        async with bank.pool.acquire() as conn, conn.transaction():
            await post_transfers(conn, batch, NOW)
    while await log_service.work_once(bank.pool, vault, NOW):
        continue
    settings: dict[str, object] = {
        "KEY_SECRET": SECRET,
        "PACKAGE_SECRET": "a passphrase of the city",
        "KAFKA_BOOTSTRAP": kafka_bootstrap,
        "KAFKA_IDEMPOTENT": kafka_idempotent,
        "KAFKA_FETCH_WAIT_MS": kafka_fetch_wait_ms,
        "KAFKA_TOPIC_PREFIX": topic_prefix,
    }
    to = await make_database("timebank", MIGRATIONS)
    names = [Topic(topic.name, compacted=True) for topic in (CITY_KEYS, CHECKPOINTS, COSIGNATURES)]
    given = Settings(
        database_url=to,
        token_issuer="https://identity.test",
        jwks_url="https://identity.test/jwks",
        **{name.lower(): value for name, value in settings.items() if name != "PACKAGE_SECRET"},
    )
    await ensure_topics(given, names)
    return bank, to, settings


async def place(dsn: str) -> str | None:
    connection = await db.connect(dsn, name="test-place")
    try:
        found: str | None = await connection.fetchval(
            "SELECT place FROM book WHERE city_id = 'nantes'"
        )
    finally:
        await connection.close()
    return found


def is_whole(file: Path) -> bool:
    try:
        open_package(file).archive.close()
    except (WrongPackage, OSError):
        return False
    return True


def said(log: Path) -> str:
    return log.read_text()


async def killed_after(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    try:
        await asyncio.to_thread(process.wait, seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    await asyncio.to_thread(process.wait)


async def test_a_city_is_never_in_two_places_and_never_lost(
    world: tuple[Any, str, dict[str, object]], begin: Any, tmp_path: Path, log: Path
) -> None:
    bank, to, settings = world
    file = tmp_path / "nantes.zip"
    leave = ("export-city", "nantes", "--to", str(file))
    before = await bank.pool.fetch("SELECT * FROM account ORDER BY account_id")
    started = asyncio.get_running_loop().time()
    cancelled = begin(*leave, DATABASE_URL=bank.dsn, **settings)
    frozen = "SELECT count(*) FROM book WHERE place <> 'here'"
    await bank.until(frozen, 1, cancelled)
    lasts_s = asyncio.get_running_loop().time() - started
    cancelled.kill()
    await asyncio.to_thread(cancelled.wait)
    for _ in range(KILLS):
        # From just before it is frozen until well after it has moved.
        seconds = bank.dice.uniform(0.9, 1.6) * lasts_s
        await killed_after(begin(*leave, DATABASE_URL=bank.dsn, **settings), seconds)
        where = await place(bank.dsn)
        assert where in ("moving", "moved")
        assert where == "moved" or not is_whole(file)
    done = begin(*leave, DATABASE_URL=bank.dsn, **settings)
    assert await asyncio.to_thread(done.wait, 120) == 0, said(log)
    assert (await place(bank.dsn), is_whole(file)) == ("moved", True)

    arrive = ("import-city", str(file))
    for _ in range(KILLS):
        seconds = bank.dice.uniform(0.9, 2.5) * lasts_s
        await killed_after(begin(*arrive, DATABASE_URL=to, **settings), seconds)
        assert await place(to) in (None, "here")
        if await place(to) is None:
            connection = await db.connect(to, name="test-nothing")
            assert await connection.fetchval("SELECT count(*) FROM transfer") == 0
            await connection.close()
    done = begin(*arrive, DATABASE_URL=to, **settings)
    assert await asyncio.to_thread(done.wait, 120) == 0, said(log)
    assert (await place(bank.dsn), await place(to)) == ("moved", "here")
    async with await db.create_pool(as_app_role(to), name="test-to", max_size=2) as pool:
        assert await pool.fetch("SELECT * FROM account ORDER BY account_id") == before
        assert await pool.fetchval("SELECT size FROM log_head") == TRANSFERS
    for report in await verify_books(to):
        assert report.sound, report.wrong
