"""What people asked for, and what they were told: ok, fail or unknown."""

import asyncio
import random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import httpx
from shards_world import Member, Shard, World, call

from common.clock import utc_now
from common.ids import new_id

Said = Literal["ok", "fail", "unknown"]

# What the state of the books refuses. Whatever else is not done must not be said to be refused.
REFUSALS = frozenset({"insufficient_time", "limit_reached"})
TRIES_MAX = 200
GIVE_UP_SHARE = 0.3
BETWEEN_SHARE = 0.5
NOBODY_SHARE = 0.1
TAKE_BACK_SHARE = 0.06
LOST_SHARE = 0.1


@dataclass
class Wish:
    """A transfer that somebody wants, within a city or to another; its id is its key and memo."""

    id: UUID
    city: str
    to_city: str
    body: dict[str, Any]
    by: str
    tries: int
    said: Said = "unknown"
    said_at: datetime | None = None
    transfer_id: UUID | None = None

    @property
    def crosses(self) -> bool:
        return self.city != self.to_city

    @property
    def path(self) -> str:
        return "clearing/transfers" if self.crosses else "transfers"


@dataclass
class TakeBack:
    """Stewards of both cities agree that a transfer be taken back."""

    transfer_id: UUID
    city: str
    to_city: str
    said: dict[str, Said] = field(default_factory=dict)

    @property
    def agreed(self) -> bool:
        return [self.said.get(city) for city in (self.city, self.to_city)] == ["ok", "ok"]


@dataclass
class History:
    wishes: list[Wish] = field(default_factory=list)
    take_backs: list[TakeBack] = field(default_factory=list)
    # Of each attempt of each shard, in order: whether somebody answered it.
    attempts: dict[str, list[bool]] = field(default_factory=dict)
    # Answers that nobody may be given.
    wrong: list[str] = field(default_factory=list)

    def count(self, shard: Shard, answered: bool) -> None:
        self.attempts.setdefault(shard.name, []).append(answered)

    def of(self, said: Said) -> list[Wish]:
        return [wish for wish in self.wishes if wish.said == said]

    def unexpected(self, answer: httpx.Response) -> None:
        self.wrong.append(f"{answer.request.url}: {answer.status_code} {answer.text[:300]}")


class Clients:
    """People who give, now within a city, now to another; some let go at the first failure, the
    others ask with the same key until they are answered."""

    def __init__(self, world: World, dice: random.Random, history: History) -> None:
        self.world = world
        self.dice = dice
        self.history = history
        self.stop = asyncio.Event()

    async def run(self, count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self.one(random.Random(self.dice.random())))

    async def one(self, dice: random.Random) -> None:
        while not self.stop.is_set():
            if dice.random() < TAKE_BACK_SHARE:
                await self.take_back(dice)
            else:
                await self.give(self.wish(dice), dice)
            await asyncio.sleep(dice.uniform(0.05, 0.3))

    def wish(self, dice: random.Random) -> Wish:
        city = dice.choice(self.world.cities)
        payer, payee = dice.sample(self.members(city), 2)
        wish_id = new_id()
        body: dict[str, Any] = {
            "from_account": str(payer.account_id),
            # Now and then more than anybody may give.
            "minutes": dice.randint(1, 20) if dice.random() < 0.95 else 10_000,
            "memo": str(wish_id),
        }
        to_city = city
        if dice.random() < BETWEEN_SHARE:
            to_city = dice.choice([one for one in self.world.cities if one != city])
            there = dice.choice(self.members(to_city)).member_id
            # Now and then to nobody: the other city refuses, and the minutes come home.
            nobody = dice.random() < NOBODY_SHARE
            body["to"] = {
                "city_id": to_city,
                "member_id": str(new_id() if nobody else there),
            }
        else:
            body["to_account"] = str(payee.account_id)
        if dice.random() < 0.5:
            body["transfer_id"] = str(wish_id)
        tries = 1 if dice.random() < GIVE_UP_SHARE else TRIES_MAX
        return Wish(wish_id, city, to_city, body, str(payer.member_id), tries)

    def members(self, city: str) -> list[Member]:
        return self.world.shard_of(city).members[city]

    async def give(self, wish: Wish, dice: random.Random) -> None:
        self.history.wishes.append(wish)
        for _ in range(wish.tries):
            answer = await self.ask(wish.city, wish.path, wish.body, str(wish.id), wish.by)
            if answer is not None and answer.status_code == 201:
                before, wish.transfer_id = wish.transfer_id, UUID(answer.json()["transfer_id"])
                if before not in (None, wish.transfer_id):
                    self.history.wrong.append(f"answered {before} before: {wish}")
                wish.said, wish.said_at = "ok", utc_now()
                if before is None and dice.random() < LOST_SHARE:
                    continue  # the answer was lost on the way to them: they ask again
                return
            if answer is not None and answer.json()["code"] in REFUSALS:
                wish.said, wish.said_at = "fail", utc_now()
                return
            await asyncio.sleep(0.1)

    async def take_back(self, dice: random.Random) -> None:
        asked = {each.transfer_id for each in self.history.take_backs}
        known = [w for w in self.history.of("ok") if w.crosses and w.transfer_id not in asked]
        if not known:
            return
        wish = dice.choice(known)
        assert wish.transfer_id is not None
        wanted = TakeBack(wish.transfer_id, wish.city, wish.to_city)
        self.history.take_backs.append(wanted)
        for city in dice.sample((wish.city, wish.to_city), 2):
            wanted.said[city] = await self.agree_to(wanted, city)

    async def agree_to(self, wanted: TakeBack, city: str) -> Said:
        path = f"clearing/transfers/{wanted.transfer_id}/reversal"
        key = str(new_id())
        for _ in range(TRIES_MAX):
            answer = await self.ask(city, path, None, key, "steward", steward=True)
            if answer is not None and answer.status_code == 200:
                return "ok"
            if answer is not None and answer.status_code in (404, 409):
                return "fail"  # not settled there yet, or returned
            await asyncio.sleep(0.1)
        return "unknown"

    async def ask(
        self,
        city: str,
        path: str,
        body: dict[str, Any] | None,
        key: str,
        by: str,
        *,
        steward: bool = False,
    ) -> httpx.Response | None:
        """An answer; None when nobody answered, or it was told to try again."""
        shard = self.world.shard_of(city)
        try:
            answer = await call(shard, path, body, key, as_=by, city=city, steward=steward)
        except httpx.HTTPError:
            self.history.count(shard, False)
            return None
        if answer.status_code == 503 or (
            answer.status_code == 409 and answer.json()["code"] == "request_in_progress"
        ):
            self.history.count(shard, False)
            return None
        if answer.status_code not in (200, 201, 404, 409):
            self.history.unexpected(answer)
            return None
        self.history.count(shard, True)
        return answer
