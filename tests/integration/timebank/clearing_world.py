"""Two time banks that share nothing: each its own database, and a broker that the test plays.

`deliver` takes what the outboxes hold, in order, to whoever listens, as Kafka would; the test may
lose, repeat and reorder it first.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from bank_world import MIGRATIONS, NOW, Bank, Caller, settings_for
from tokens import ISSUER, key_set

from common.auth import TokenVerifier
from common.events import Event
from common.ids import new_id
from timebank import consumers
from timebank.app import create_app
from timebank.clearing import service
from timebank.clearing.keys import Vault
from timebank.events import CHECKPOINTS, CITY_KEYS, CLEARING, COSIGNATURES

SECRET = "k" * 32
TOPICS = [topic.name for topic in (CLEARING, CITY_KEYS, CHECKPOINTS, COSIGNATURES)]


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Letter:
    topic: str
    data: dict[str, Any]


@dataclass
class Federation:
    """Nantes and Brest in one time bank, Bourges in another; agreements as the test makes them."""

    banks: dict[str, Bank]
    clock: Any
    vault: Vault = field(default_factory=lambda: Vault(SECRET))
    letters: list[Letter] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)

    def bank(self, city: str) -> Bank:
        return self.banks[city]

    @property
    def each(self) -> list[Bank]:
        return list({id(bank): bank for bank in self.banks.values()}.values())

    def caller(self, name: str, city: str, *roles: str) -> Caller:
        return self.bank(city).caller(name, city, *roles)

    def steward(self, city: str) -> Caller:
        return self.caller(str(new_id()), city, "steward")

    # --- the broker -------------------------------------------------------------------------------

    async def collect(self) -> None:
        """What was sent since it was last asked."""
        for bank in self.each:
            rows = await bank.pool.fetch(
                "SELECT id, topic, payload FROM outbox WHERE id > $1 AND topic = ANY($2)"
                " ORDER BY id",
                self.seen.get(bank.dsn, 0),
                TOPICS,
            )
            for row in rows:
                self.seen[bank.dsn] = row["id"]
                self.letters.append(Letter(row["topic"], row["payload"]))

    async def deliver_one(self, letter: Letter) -> None:
        """To every time bank: a topic is read by all of them."""
        for bank in self.each:
            handlers = consumers.clearing_handlers(self.vault, self.clock)
            event = Event(
                id=new_id(),
                type="test",
                source="/timebank",
                subject="",
                time=self.clock(),
                data=letter.data,
            )
            async with bank.pool.acquire() as conn, conn.transaction():
                await handlers[letter.topic](conn, event)

    async def deliver(self) -> None:
        """Until nobody says anything any more."""
        while True:
            await self.collect()
            if not self.letters:
                return
            letters, self.letters = self.letters, []
            for letter in letters:
                await self.deliver_one(letter)

    async def ask_again(self) -> int:
        count = 0
        for bank in self.each:
            async with bank.pool.acquire() as conn, conn.transaction():
                count += await service.ask_again(conn, self.vault, self.clock())
        return count

    # --- what people do ---------------------------------------------------------------------------

    async def make_keys(self) -> None:
        for bank in self.each:
            async with bank.pool.acquire() as conn, conn.transaction():
                await service.ensure_keys(conn, self.vault, self.clock())
        await self.deliver()

    async def agree(self, a: str, b: str, **terms: Any) -> None:
        body = {
            "city_id": a,
            "peer_city_id": b,
            "limit_out_minutes": 600,
            "limit_in_minutes": 600,
            **{name: value for name, value in terms.items() if not name.startswith("b_")},
        }
        proposed = await self.steward(a).post("agreements", body)
        assert proposed.status_code == 201, proposed.text
        await self.deliver()
        levies = {name[2:]: value for name, value in terms.items() if name.startswith("b_")}
        accepted = await self.steward(b).post(f"agreements/{b}/{a}/accept", levies)
        assert accepted.status_code == 200, accepted.text
        await self.deliver()

    async def send(
        self, name: str, city: str, payee: str, to: str, minutes: int, **more: Any
    ) -> dict[str, Any]:
        answer = await self.caller(name, city).post(
            "clearing/transfers",
            {
                "from_account": str(self.bank(city).accounts[name]),
                "to": {"city_id": to, "member_id": str(self.bank(to).members[payee])},
                "minutes": minutes,
                **more,
            },
        )
        assert answer.status_code == 201, answer.text
        sent: dict[str, Any] = answer.json()
        return sent

    # --- what is true -----------------------------------------------------------------------------

    async def state(self, city: str, transfer_id: str | UUID) -> str:
        state: str = await self.bank(city).pool.fetchval(
            "SELECT state FROM clearing_out WHERE transfer_id = $1", UUID(str(transfer_id))
        )
        return state

    async def minutes(self, city: str, kind: str, peer: str | None = None) -> int:
        minutes: int = await self.bank(city).pool.fetchval(
            "SELECT balance_minutes FROM account WHERE city_id = $1 AND kind = $2"
            " AND peer_city_id IS NOT DISTINCT FROM $3",
            city,
            kind,
            peer,
        )
        return minutes

    async def balance(self, city: str, name: str) -> int:
        return await self.bank(city).balance(name)

    async def check_books(self) -> None:
        """Each city sums to zero; at rest a pair sums to zero and nothing is in transit."""
        pairs: dict[tuple[str, str], int] = {}
        for bank in self.each:
            sums = await bank.pool.fetch(
                "SELECT city_id, sum(balance_minutes) AS minutes FROM account GROUP BY city_id"
            )
            assert {row["minutes"] for row in sums} == {0}
            rows = await bank.pool.fetch(
                "SELECT city_id, peer_city_id, kind, balance_minutes FROM account"
                " WHERE peer_city_id IS NOT NULL"
            )
            for row in rows:
                if row["kind"] == "in_transit":
                    assert row["balance_minutes"] == 0
                else:
                    pairs[row["city_id"], row["peer_city_id"]] = row["balance_minutes"]
        for (a, b), minutes in pairs.items():
            assert minutes + pairs.get((b, a), 0) == 0


@asynccontextmanager
async def two_time_banks(
    make_database: Callable[[str, Path], Awaitable[str]],
    clock: Callable[[], datetime] | None = None,
    **more: Any,
) -> AsyncIterator[Federation]:
    """Anna in Nantes, Denis in Brest, both in one time bank; Chloé in Bourges, in another.

    `more` are settings of both. No key is made yet.
    """
    clock = clock or Clock()
    async with AsyncExitStack() as stack:
        banks = []
        for shard, cities in (("west", "nantes,brest"), ("centre", "bourges")):
            dsn = await make_database("timebank", MIGRATIONS)
            settings = settings_for(dsn, key_secret=SECRET, cities=cities, shard=shard, **more)
            app = create_app(settings, clock)
            await stack.enter_async_context(app.router.lifespan_context(app))
            identity = await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.MockTransport(lambda _: httpx.Response(200, json=key_set()))
                )
            )
            http = await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app, raise_app_exceptions=False),
                    base_url="http://timebank.test",
                )
            )
            app.state.verifier = TokenVerifier(
                issuer=ISSUER, audience="timebank", jwks_url=f"{ISSUER}/jwks", http=identity
            )
            banks.append(Bank(app, http, dsn, app.state.pool))
        west, centre = banks
        for name, city, bank in (
            ("anna", "nantes", west),
            ("denis", "brest", west),
            ("chloe", "bourges", centre),
        ):
            await bank.join(name, city)
        yield Federation({"nantes": west, "brest": west, "bourges": centre}, clock)
