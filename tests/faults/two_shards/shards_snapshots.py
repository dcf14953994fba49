"""What must be true of the books at every moment, also in the middle of a fault.

A snapshot is one database's. Of the other nothing is known at that very instant; but who looks
there *later* must find all that the first had heard from it.
"""

import asyncio
import contextlib
from collections import defaultdict
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import httpx
from shards_world import Shard, World
from tokens import token

from copass_verify.checkpoints import parse_checkpoint
from copass_verify.notes import split_note

LOOK_EVERY_S = 0.7
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


@dataclass(frozen=True)
class Sent:
    city: str
    to_city: str
    minutes: int
    state: str


@dataclass(frozen=True)
class Heard:
    city: str
    from_city: str
    minutes: int
    accepted: bool


@dataclass(frozen=True)
class Snapshot:
    """Clearing as one shard keeps it, and what is wrong within its own books."""

    sent: dict[UUID, Sent]
    heard: dict[UUID, Heard]
    # (city, peer, kind) → minutes
    accounts: dict[tuple[str, str, str], int]
    wrong: tuple[str, ...]


CROOKED = (
    "SELECT transfer_id, sum(minutes) FROM posting GROUP BY transfer_id HAVING sum(minutes) <> 0"
)
UNBALANCED = "SELECT city_id, sum(balance_minutes) FROM account GROUP BY city_id"
NOT_THE_SUM = (
    "SELECT a.account_id, a.balance_minutes, coalesce(sum(p.minutes), 0) FROM account a"
    " LEFT JOIN posting p USING (account_id) GROUP BY a.account_id"
    " HAVING a.balance_minutes <> coalesce(sum(p.minutes), 0)"
)


async def look(shard: Shard) -> Snapshot:
    """Raises one of AWAY while the database is away."""
    connection = await asyncpg.connect(shard.dsn, timeout=3, command_timeout=10)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            crooked = [tuple(row) for row in await connection.fetch(CROOKED)]
            sums = [tuple(row) for row in await connection.fetch(UNBALANCED)]
            odd = [tuple(row) for row in await connection.fetch(NOT_THE_SUM)]
            out = await connection.fetch(
                "SELECT transfer_id, city_id, to_city, minutes, state FROM clearing_out"
            )
            come = await connection.fetch(
                "SELECT transfer_id, city_id, from_city, minutes, accepted FROM clearing_in"
            )
            accounts = await connection.fetch(
                "SELECT city_id, peer_city_id, kind, balance_minutes FROM account"
                " WHERE peer_city_id IS NOT NULL"
            )
    finally:
        connection.terminate()
    wrong = [f"transfers that do not sum to zero: {crooked}"] if crooked else []
    wrong += [f"the balances of {city} sum to {minutes}" for city, minutes in sums if minutes]
    wrong += [f"accounts that are not the sum of their postings: {odd}"] if odd else []
    snapshot = Snapshot(
        {
            row["transfer_id"]: Sent(row["city_id"], row["to_city"], row["minutes"], row["state"])
            for row in out
        },
        {
            row["transfer_id"]: Heard(
                row["city_id"], row["from_city"], row["minutes"], row["accepted"]
            )
            for row in come
        },
        {
            (row["city_id"], row["peer_city_id"], row["kind"]): row["balance_minutes"]
            for row in accounts
        },
        (),
    )
    return Snapshot(
        snapshot.sent, snapshot.heard, snapshot.accounts, (*wrong, *not_as_told(snapshot))
    )


def not_as_told(snapshot: Snapshot) -> list[str]:
    """Accounts between cities that do not stand where the transfers say."""
    expected: dict[tuple[str, str, str], int] = defaultdict(int)
    for sent in snapshot.sent.values():
        if sent.state == "sent":
            expected[sent.city, sent.to_city, "in_transit"] += sent.minutes
        elif sent.state == "settled":
            expected[sent.city, sent.to_city, "clearing"] += sent.minutes
    for heard in snapshot.heard.values():
        if heard.accepted:
            expected[heard.city, heard.from_city, "clearing"] -= heard.minutes
    return [
        f"{kind} of {city} with {peer} stands at {minutes}, and not at {expected[city, peer, kind]}"
        for (city, peer, kind), minutes in snapshot.accounts.items()
        if minutes != expected[city, peer, kind]
    ]


def not_followed(earlier: Snapshot, later: Snapshot, cities: tuple[str, ...]) -> list[str]:
    """What the earlier had heard of `cities`, whose books the later shows, and is not there."""
    wrong = []
    for each, sent in earlier.sent.items():
        if sent.to_city not in cities or sent.state == "sent":
            continue
        there = later.heard.get(each)
        if there is None or there.accepted != (sent.state == "settled"):
            wrong.append(f"{each}: {sent.state} in {sent.city}, but {there} in {sent.to_city}")
    for each, heard in earlier.heard.items():
        if heard.from_city in cities:
            origin = later.sent.get(each)
            if origin is None or origin.minutes != heard.minutes:
                wrong.append(f"{each}: {heard}, but {origin} in {heard.from_city}")
    return wrong


async def look_at_all(world: World) -> list[str]:
    """One shard, the other, the first again."""
    west, centre = world.shards
    first, other, again = await look(west), await look(centre), await look(west)
    wrong = [*first.wrong, *other.wrong, *again.wrong]
    for snapshot, shard in ((again, west), (other, centre)):
        wrong += not_followed(snapshot, snapshot, shard.cities)
    wrong += not_followed(first, other, centre.cities)
    wrong += not_followed(other, again, west.cities)
    return wrong


@dataclass
class Watch:
    """Looks all the time, and keeps what is wrong and every checkpoint that it was shown."""

    world: World
    looks: int = 0
    wrong: list[str] = field(default_factory=list)
    notes: dict[tuple[str, int], str] = field(default_factory=dict)

    async def run(self) -> None:
        while True:
            with contextlib.suppress(*AWAY):
                async with asyncio.timeout(15):
                    self.wrong += await look_at_all(self.world)
                    self.looks += 1
            for city in self.world.cities:
                with contextlib.suppress(httpx.HTTPError):
                    await self.ask_checkpoint(city)
            await asyncio.sleep(LOOK_EVERY_S)

    async def ask_checkpoint(self, city: str) -> None:
        bearer = token("auditor", city=None, roles=("auditor",))
        answer = await self.world.shard_of(city).http.get(
            f"/v1/log/{city}/checkpoint",
            headers={"Authorization": f"Bearer {bearer}"},
            timeout=3,
        )
        if answer.status_code != 200:
            return
        text, _ = split_note(answer.content)
        checkpoint = parse_checkpoint(text)
        known = self.notes.setdefault((city, checkpoint.size), text)
        if parse_checkpoint(known).root != checkpoint.root:
            self.wrong.append(f"{city} showed two roots for {checkpoint.size} entries")
