"""A resident's day, through the doors and APIs of a whole running network.

Louise lives in Bourges and promised her city an hour a month. Two months are over without it: away
from home doors stay shut, at home hers opens. She cooks for two hours, the house confirms, her
pledge is met, and a door in another city opens. When that work is taken back, all is as before.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from ledger_laws import AccountLine, Follower, HoldLine
from seeded_network import SeededNetwork, seeded_network

from copass.demo_api import Api, ApiError, Login, TapAnswer, new_tap, open_api
from copass.demo_check import converged
from copass.demo_data import PASSWORD
from copass.demo_state import ADMIN, service_urls

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

WITHIN_S = 60.0
CITIES = {"bourges": "Bourges", "nantes": "Nantes"}
# What heals by itself: news of a city, a member or a reader that is still on its way.
UNDER_WAY = frozenset({"unknown_city", "unknown_reader", "not_found", "unauthenticated"})


@pytest.fixture(scope="module")
def network() -> Iterator[SeededNetwork]:
    """One with nothing in it: what the day needs is made here."""
    with seeded_network(seed=False) as running:
        yield running


@dataclass(frozen=True)
class Door:
    door_id: UUID
    reader_key: str


@dataclass
class Day:
    """Two cities, a house with a door of its own, a place that never closes, and their people."""

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


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """What the first test made, for those after it."""
    return {}


@pytest.fixture
async def day(network: SeededNetwork, made: dict[str, Any]) -> AsyncIterator[Day]:
    async with open_api(service_urls(Path(network.home))) as api:
        day = Day(api, **made)
        if not made:
            for city_id, name in CITIES.items():
                body = {"city_id": city_id, "name": name, "timezone": "Europe/Paris"}
                await day.make("identity", "cities", body)
            day.house_id, day.home = await day.build("bourges", "private")
            _, day.away = await day.build("nantes", "public")
            await day.join("stella", "steward")
            await day.join("anouk", "animator", at_home=True)
            made |= {name: getattr(day, name) for name in ("logins", "ids", "uids")}
            made |= {name: getattr(day, name) for name in ("house_id", "home", "away")}
        yield day


def today() -> date:
    return datetime.now(ZoneInfo("Europe/Paris")).date()


def first_of(months_ago: int) -> date:
    months = today().year * 12 + today().month - 1 - months_ago
    return date(months // 12, months % 12 + 1, 1)


async def test_two_hours_of_work_open_a_door_in_another_city(
    day: Day, network: SeededNetwork
) -> None:
    assert day.home
    assert day.away
    home, away = day.home, day.away
    await day.join("louise", "resident", at_home=True)
    # She has just come: nobody owes before having promised anything.
    await day.until("louise", away, "grant", "network_member")
    await day.until("louise", home, "grant", "resident")
    await day.until_standing("louise", "good")

    # Her steward writes down what she promised two months ago.
    pledge = await day.say(
        "stella",
        "pledges",
        {
            "member_id": str(day.ids["louise"]),
            "minutes_per_month": 60,
            "skills": ["cuisine"],
            "starts_on": first_of(2).isoformat(),
        },
    )
    await day.until_standing("louise", "lapsed")
    await day.until("louise", away, "deny", "standing_lapsed")
    assert (await day.tap("louise", home)).reason == "resident"

    # Two hours in the kitchen of the house, logged, and confirmed by somebody else.
    logged = await day.say(
        "louise",
        "contributions",
        {
            "beneficiary": {"kind": "commons"},
            "minutes": 120,
            "performed_on": today().isoformat(),
            "activity": "cooking",
        },
    )
    path = f"contributions/{logged['contribution_id']}"
    version = {"version": logged["version"]}
    with pytest.raises(ApiError) as refused:
        await day.say("louise", f"{path}/confirm", version)
    assert refused.value.code == "self_confirmation"
    assert (await day.tap("louise", away)).reason == "standing_lapsed"
    done = await day.say("anouk", f"{path}/confirm", version)
    assert (done["status"], done["confirmed_minutes"]) == ("confirmed", 120)

    months = (await day.ask("louise", f"pledges/{pledge['pledge_id']}"))["periods"]
    assert [month["state"] for month in months] == ["met", "met", "open"]
    assert await day.balance("louise") == 0  # both hours are what she had promised
    await day.until_standing("louise", "good")
    await day.until("louise", away, "grant", "network_member")
    history = (await day.ask("louise", f"standings/{day.ids['louise']}/history"))["items"]
    assert [line["standing"] for line in history] == ["good", "lapsed", "good"]

    # It was a mistake: the steward takes it back, and with it what it had met.
    await day.say("stella", f"{path}/reverse")
    await day.until_standing("louise", "lapsed")
    await day.until("louise", away, "deny", "standing_lapsed")
    assert (await day.tap("louise", home)).reason == "resident"
    assert await day.balance("louise") == 0

    # The fund of the city helps with the same two hours, and nobody at the door knows.
    await day.say("anouk", "solidarity/gifts", {"minutes": 120, "anonymous": True})
    wanted = {"minutes": 120, "for": "pledge", "reason": "ill"}
    asked = await day.say("louise", "solidarity/requests", wanted)
    request = f"solidarity/requests/{asked['request_id']}"
    await day.say("stella", f"{request}/grant", {})
    await day.until_standing("louise", "good")
    await day.until("louise", away, "grant", "network_member")
    with pytest.raises(ApiError) as hidden:
        await day.ask("anouk", request)
    assert hidden.value.status == 404

    # Minutes set aside stay so, and are told.
    own = await day.ask("anouk", "accounts", owner_id=day.ids["anouk"])
    commons = await day.ask("anouk", "accounts", city_id="bourges", kind="commons")
    held = {
        "from_account": own["items"][0]["account_id"],
        "to_account": commons["items"][0]["account_id"],
        "minutes": 15,
        "expires_at": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
    }
    await day.say("anouk", "holds", held)

    book = await day.api.get("timebank", "/v1/books/bourges", ADMIN)
    assert book["sum_minutes"] == 0
    verified = await asyncio.to_thread(
        network.copass.run, "run", "timebank", "verify-books", timeout_s=120
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert await converged(network.stores, within_s=60) == []
    await the_events_alone_give_the_same_books(network)


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


async def test_whatever_a_city_decides_about_a_resident_they_come_home(day: Day) -> None:
    assert day.home
    assert day.away
    await day.join("marius", "resident", at_home=True)
    await day.until("marius", day.away, "grant", "network_member")
    await day.make("identity", f"members/{day.ids['marius']}/suspend", {})
    await day.until("marius", day.away, "deny", "member_suspended")
    assert (await day.tap("marius", day.home)).reason == "resident"
