"""A time bank's database, and programs of the time bank that a test may kill."""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import timebank
from common import db
from common.ids import new_id
from timebank import service
from timebank.domain import Actor
from timebank.service import CityState, MemberState
from timebank.settings import as_app_role

MIGRATIONS = Path(timebank.__file__).parent / "migrations"
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
PATIENCE_S = 60.0

Begin = Callable[..., "subprocess.Popen[bytes]"]


@dataclass
class Bank:
    """Two members of Nantes."""

    dsn: str
    pool: db.Pool
    anna: UUID
    bruno: UUID
    dice: random.Random

    @property
    def steward(self) -> Actor:
        return Actor("steward", "nantes", steward=True)

    async def until(self, question: str, count: int, process: "subprocess.Popen[bytes]") -> bool:
        """Wait until a count is reached, and a moment more; False when the program ended before."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.pool.fetchval(question) < count:
                if process.poll() is not None:
                    return False
                await asyncio.sleep(0.005)
        await asyncio.sleep(self.dice.uniform(0, 0.03))
        return process.poll() is None


@pytest.fixture
def dice(record_property: Callable[[str, object], None]) -> random.Random:
    """SEED_OF_FAULTS=… repeats a run."""
    seed = int(os.environ.get("SEED_OF_FAULTS") or random.SystemRandom().randrange(1_000_000))
    record_property("SEED_OF_FAULTS", seed)
    return random.Random(seed)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What the programs said."""
    return tmp_path / "log"


@pytest.fixture
def begin(log: Path) -> Iterator[Begin]:
    """`begin(words, DATABASE_URL=…)` starts `python -m timebank …`, to be killed at will."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str, **settings: object) -> "subprocess.Popen[bytes]":
        environment = {
            "KAFKA_BOOTSTRAP": "127.0.0.1:1",
            "TOKEN_ISSUER": "https://identity.test",
            "JWKS_URL": "https://identity.test/jwks",
            "CHECK_BOOKS_MINUTES": 0,
            **settings,
        }
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "timebank", *words],
                env={**os.environ, **{f"TIMEBANK_{k}": str(v) for k, v in environment.items()}},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
async def bank(
    make_database: Callable[[str, Path], Awaitable[str]], dice: random.Random
) -> AsyncIterator[Bank]:
    dsn = await make_database("timebank", MIGRATIONS)
    async with await db.create_pool(as_app_role(dsn), name="test", max_size=4) as pool:
        accounts = []
        async with pool.acquire() as conn, conn.transaction():
            city = CityState("nantes", "active", "Europe/Paris", 1)
            await service.apply_city(conn, city, NOW, new_id)
            for _ in range(2):
                member = MemberState(new_id(), "nantes", "active", 1)
                await service.apply_member(conn, member, NOW, new_id)
                accounts.append(
                    await conn.fetchval(
                        "SELECT account_id FROM account WHERE owner_id = $1", member.member_id
                    )
                )
        yield Bank(dsn, pool, accounts[0], accounts[1], dice)


@pytest.fixture
def ports(unused_port: int) -> Iterator[int]:
    """Ports that nobody listens on, one after the other."""

    def numbers() -> Iterator[int]:
        from copass.servers import unused_port as another

        yield unused_port
        while True:
            yield another()

    return numbers()
