"""A resident's day, through the doors and APIs of a whole running network.

Louise lives in Bourges and promised her city an hour a month. Two months are over without it: away
from home doors stay shut, at home hers opens. She cooks for two hours, the house confirms, her
pledge is met, and a door in another city opens. When that work is taken back, all is as before.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import asyncpg
from ledger_laws import AccountLine, Follower, HoldLine
from seeded_network import SeededNetwork

from copass.demo_api import Api, ApiError, Login, TapAnswer, new_tap
from copass.demo_data import PASSWORD
from copass.demo_state import ADMIN

WITHIN_S = 60.0
CITIES = {"bourges": "Bourges", "nantes": "Nantes"}
# What heals by itself: news of a city, a member or a reader that is still on its way.
UNDER_WAY = frozenset({"unknown_city", "unknown_reader", "not_found", "unauthenticated"})


@dataclass(frozen=True)
class Door:
    door_id: UUID
    reader_key: str


@dataclass
class Day:
    """In two cities: a house with a door of its own, a place that never closes, and people."""

    api: Api
    logins: dict[str, Login] = field(default_factory=dict)
    ids: dict[str, UUID] = field(default_factory=dict)
    uids: dict[str, str] = field(default_factory=dict)
    house_id: str = ""
    home: Door | None = None
    away: Door | None = None

    async def make(
        self, service: str, path: str, body: dict[str, Any], method: str = "POST"
    ) -> dict[str, Any]:
        """A command of the administrator, again while news is under way."""
        deadline, key = time.monotonic() + WITHIN_S, str(uuid4())
        while True:
            try:
                return await self.api.command(
                    service, method, f"/v1/{path}", body, login=ADMIN, key=key
                )
            except ApiError as error:
                if error.code not in UNDER_WAY or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.1)

    async def join(self, name: str, *roles: str, at_home: bool = False) -> None:
        """Somebody of Bourges, with a login and a card."""
        self.logins[name] = Login(f"{name}@bourges.example", PASSWORD)
        made = await self.make(
            "identity",
            "members",
            {
                "city_id": "bourges",
                "display_name": name.title(),
                "email": self.logins[name].email,
                "password": PASSWORD,
            },
        )
        self.ids[name] = UUID(made["member_id"])
        places = {self.house_id: "resident"} if at_home else {}
        await self.make(
            "identity", f"members/{self.ids[name]}/roles", {"roles": roles, "places": places}, "PUT"
        )
        self.uids[name] = f"00{uuid4().hex[:12]}".upper()
        card = {"member_id": str(self.ids[name]), "type": "uid", "uid": self.uids[name]}
        await self.make("identity", "cards", card)

    async def build(self, city_id: str, kind: str) -> tuple[str, Door]:
        """A place that is always open, with one door and its reader."""
        place = await self.make(
            "places",
            "places",
            {
                "city_id": city_id,
                "name": f"{CITIES[city_id]} {kind}",
                "profile": "work_enterprise",
                "postcode": "18000",
                "commune": CITIES[city_id],
                "opening_hours": "24/7",
            },
        )
        reader = await self.make("identity", "readers", {"city_id": city_id})
        door = await self.make(
            "places",
            f"places/{place['place_id']}/doors",
            {
                "name": "Porte",
                "kind": kind,
                "min_assurance": 1,
                "unlock_ms": 3000,
                "publics": ["network"] if kind == "public" else [],
            },
        )
        link = {"reader_id": reader["reader_id"]}
        await self.make("places", f"doors/{door['door_id']}/readers", link)
        return place["place_id"], Door(UUID(door["door_id"]), reader["key"])

    async def tap(self, name: str, door: Door) -> TapAnswer:
        return await self.api.tap(new_tap(door.door_id, self.uids[name]), door.reader_key)

    async def until(self, name: str, door: Door, decision: str, reason: str) -> None:
        """Taps until the door answers so."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                answer: Any = await self.tap(name, door)
                if (answer.decision, answer.reason) == (decision, reason):
                    return
            except ApiError as error:  # access has not heard of the door or of its reader
                answer = error
            assert time.monotonic() < deadline, f"{answer}, not {reason}"
            await asyncio.sleep(0.02)

    async def ask(self, name: str, path: str, **params: Any) -> dict[str, Any]:
        return await self.api.get("timebank", f"/v1/{path}", self.logins[name], **params)

    async def say(self, name: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return await self.api.command(
            "timebank", "POST", f"/v1/{path}", body, login=self.logins[name]
        )

    async def until_standing(self, name: str, wanted: str) -> None:
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                standing = (await self.ask(name, f"standings/{self.ids[name]}"))["standing"]
            except ApiError as error:  # the time bank has not heard of the member
                standing = error.code
            if standing == wanted:
                return
            assert time.monotonic() < deadline, f"{standing}, not {wanted}"
            await asyncio.sleep(0.05)

    async def balance(self, name: str) -> int:
        found = await self.ask(name, "accounts", owner_id=self.ids[name])
        return int(found["items"][0]["balance_minutes"])


def today() -> date:
    return datetime.now(ZoneInfo("Europe/Paris")).date()


def first_of(months_ago: int) -> date:
    months = today().year * 12 + today().month - 1 - months_ago
    return date(months // 12, months % 12 + 1, 1)


async def the_events_alone_give_the_same_books(network: SeededNetwork) -> None:
    connection = await asyncpg.connect(network.stores.databases["timebank"])
    try:
        told = await connection.fetch("SELECT type, payload FROM outbox ORDER BY id")
        accounts = await connection.fetch("SELECT * FROM account")
        held = await connection.fetch("SELECT * FROM hold")
    finally:
        await connection.close()
    follower = Follower()
    follower.follow((row["type"], json.loads(row["payload"])) for row in told)
    assert follower.accounts == {
        row["account_id"]: AccountLine(
            row["status"] == "open",
            row["floor_minutes"],
            row["ceiling_minutes"],
            row["balance_minutes"],
            row["held_minutes"],
            row["version"],
        )
        for row in accounts
    }
    assert follower.holds == {
        row["hold_id"]: HoldLine(row["from_account"], row["minutes"], row["status"]) for row in held
    }
