"""kill -9 of the API and of PostgreSQL while people give to each other over HTTP.

A history of ok, refused and unknown is kept, as the clients saw it. What was acknowledged is there
once; what was refused is not there; what nobody knows is there once or not at all. FULL=1 kills
more often; SEED_OF_FAULTS=… repeats a run.
"""

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from tokens import ISSUER, serving_keys, token

from common import db
from common.clock import utc_now
from common.ids import new_id
from common.migrate import migrate
from copass import servers
from timebank import service
from timebank.service import CityState, MemberState
from timebank.settings import as_app_role
from timebank.verify import verify_books

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

CLIENTS = 12
MEMBERS = 5
FAULTS = ("api", "postgres", "api") * (4 if os.environ.get("FULL") == "1" else 1)
PATIENCE_S = 40.0


@dataclass
class Wish:
    """One transfer that somebody wants; its id is its key. `said`: ok, refused or unknown."""

    id: UUID
    body: dict[str, Any]
    tries: int
    said: str = "unknown"


@dataclass
class Bank:
    """A time bank of its own: PostgreSQL with fsync, the API as a process."""

    postgres: Any
    port: int
    dsn: str
    jwks: str
    begin: Any
    api: Any = None
    accounts: list[UUID] = field(default_factory=list)
    wishes: list[Wish] = field(default_factory=list)

    def start_api(self) -> None:
        self.api = self.begin(
            "api", PORT=self.port, JWKS_URL=self.jwks, DATABASE_URL=self.dsn, TOKEN_ISSUER=ISSUER
        )

    async def ready(self, http: httpx.AsyncClient) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await http.get("/readyz")).status_code == 200:
                        return
                assert self.api.poll() is None, "the API has ended"
                await asyncio.sleep(0.05)


@pytest.fixture
def jwks() -> Iterator[str]:
    """The address of a key set."""
    with serving_keys() as address:
        yield address


@pytest.fixture
async def bank(start_server: Any, server_folder: Path, ports: Any, jwks: str, begin: Any) -> Bank:
    postgres = await start_server(servers.postgres(server_folder, next(ports), "secret"))
    await migrate(postgres.url, "timebank", service_migrations())
    running = Bank(postgres, next(ports), postgres.url, jwks, begin)
    connection = await db.connect(as_app_role(postgres.url), name="test")
    async with connection.transaction():
        now = utc_now()
        city = CityState("nantes", "active", "Europe/Paris", 1)
        await service.apply_city(connection, city, now, new_id)
        for _ in range(MEMBERS):
            member = MemberState(new_id(), "nantes", "active", 1)
            await service.apply_member(connection, member, now, new_id)
    rows = await connection.fetch("SELECT account_id FROM account WHERE kind = 'member'")
    running.accounts = [row["account_id"] for row in rows]
    await connection.close()
    running.start_api()
    return running


def service_migrations() -> Path:
    return Path(service.__file__).parent / "migrations"


async def give(
    bank: Bank, http: httpx.AsyncClient, dice: random.Random, stop: asyncio.Event
) -> None:
    """Gives and gives; some let go at the first failure, the others ask until they are answered."""
    bearer = token("steward", city="nantes", roles=("member", "steward"))
    while not stop.is_set():
        payer, payee = dice.sample(bank.accounts, 2)
        wish_id = new_id()
        body = {
            "from_account": str(payer),
            "to_account": str(payee),
            # Now and then more than anybody may give.
            "minutes": dice.randint(1, 30) if dice.random() < 0.9 else 10_000,
        }
        if dice.random() < 0.5:
            body["transfer_id"] = str(wish_id)
        wish = Wish(wish_id, body, tries=1 if dice.random() < 0.3 else 200)
        bank.wishes.append(wish)
        headers = {"Authorization": f"Bearer {bearer}", "Idempotency-Key": str(wish_id)}
        for _ in range(wish.tries):
            with contextlib.suppress(httpx.HTTPError):
                answer = await http.post("/v1/transfers", json=body, headers=headers)
                if answer.status_code == 201:
                    wish.said = "ok"
                    break
                if answer.status_code == 409:
                    wish.said = "refused"
                    break
                assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.05)


async def test_nothing_acknowledged_is_lost_and_nothing_is_done_twice(
    bank: Bank, dice: random.Random
) -> None:
    stop = asyncio.Event()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bank.port}", timeout=5) as http:
        await bank.ready(http)
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(give(bank, http, random.Random(dice.random()), stop))
            for victim in FAULTS:
                await asyncio.sleep(dice.uniform(0.3, 1.2))
                if victim == "api":
                    bank.api.kill()
                    bank.api.wait()
                    bank.start_api()
                else:
                    bank.postgres.kill()
                    await bank.postgres.start()
                await bank.ready(http)
            await asyncio.sleep(0.5)
            stop.set()
    said = Counter(wish.said for wish in bank.wishes)
    assert said["ok"] > 20, said
    assert said["refused"], said

    connection = await asyncpg.connect(bank.dsn)
    try:
        rows = await connection.fetch("SELECT key, transfer_id FROM transfer_key")
        transfers = await connection.fetchval("SELECT count(*) FROM transfer")
        told = await connection.fetch(
            "SELECT key FROM outbox WHERE topic = 'timebank.transfers.v1'"
        )
    finally:
        await connection.close()
    by_key = {UUID(row["key"]): row["transfer_id"] for row in rows}
    for wish in bank.wishes:
        if wish.said == "ok":
            assert wish.id in by_key, f"lost: {wish}"
        elif wish.said == "refused":
            assert wish.id not in by_key, f"refused, and done: {wish}"
    # One transfer for each key, and none besides; one event for each transfer.
    assert len(set(by_key.values())) == len(by_key) == transfers
    assert by_key.keys() <= {wish.id for wish in bank.wishes}
    assert sorted(row["key"] for row in told) == sorted(map(str, by_key.values()))
    for report in await verify_books(bank.dsn):
        assert report.sound, report.wrong
