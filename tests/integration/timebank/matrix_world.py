"""A city with one of everything, and the routes of the OpenAPI to ask for it by."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from bank_world import Caller
from board_world import ask, publish
from clearing_world import Federation, two_time_banks
from tokens import token

from common.ids import new_id
from timebank.netting import store as netting
from timebank.netting.domain import Netting, Plan
from timebank.netting.planning import Move
from timebank.netting.store import Kept

METHODS = ("get", "post", "put", "patch", "delete")
ABSENT_CITY = "nulle-part"
DAY = "2026-11-20"
LATER = "2026-11-25T10:00:00Z"

# What each command is sent. `{name}` is a thing of Nantes, or one that does not exist.
WORK = {
    "beneficiary": {"kind": "member", "id": "{member_id}"},
    "minutes": 5,
    "performed_on": DAY,
    "activity": "cooking",
}
LISTING = {
    "kind": "offer",
    "what": "service",
    "title": "Un coup de main",
    "category": "repair",
    "organisation_id": "{organisation_id}",
}
RULES = {
    "carry_minutes_max": 0,
    "grace_days": 14,
    "rent_cents_per_hour": 900,
    "rent_minutes_max_per_month": 600,
    "member_floor_minutes": -600,
}
BODIES: dict[str, Any] = {
    "POST /v1/accounts": {"city_id": "{city_id}", "owner_id": str(new_id())},
    "PATCH /v1/accounts/{account_id}": {"floor_minutes": -700},
    "POST /v1/agreements": {
        "city_id": "{city_id}",
        "peer_city_id": "bourges",
        "limit_out_minutes": 5,
        "limit_in_minutes": 5,
    },
    "POST /v1/agreements/{city_id}/{peer_city_id}/accept": {},
    "PUT /v1/books/{city_id}/rules": RULES,
    "POST /v1/log/{city_id}/keys": {},
    "POST /v1/clearing/transfers": {
        "from_account": "{account_id}",
        "to": {"city_id": "nantes", "member_id": "{member_id}"},
        "minutes": 5,
    },
    "POST /v1/contributions": WORK,
    "POST /v1/contributions/group": {"items": [WORK]},
    "PATCH /v1/contributions/{contribution_id}": {"minutes": 6},
    "POST /v1/contributions/{contribution_id}/accept": {"version": 1},
    "POST /v1/contributions/{contribution_id}/confirm": {"version": 1},
    "POST /v1/contributions/{contribution_id}/dispute": {"minutes": 2},
    "POST /v1/contributions/{contribution_id}/rule": {"minutes": 2},
    "POST /v1/exchanges/{exchange_id}/damaged": {"minutes": 1},
    "POST /v1/exchanges/{exchange_id}/rule": {"minutes": 1},
    "POST /v1/holds": {
        "from_account": "{account_id}",
        "to_account": "{other_account_id}",
        "minutes": 5,
        "expires_at": LATER,
    },
    "POST /v1/holds/{hold_id}/post": {"minutes": 1},
    "POST /v1/listings": LISTING,
    "PATCH /v1/listings/{listing_id}": {"title": "Autre"},
    "POST /v1/nettings": {"city_id": "{city_id}"},
    "POST /v1/listings/{listing_id}/requests": {"message": "Bonjour"},
    "POST /v1/members/{member_id}/exemption": {"reason": "malade"},
    "POST /v1/pledges": {"minutes_per_month": 60, "member_id": "{member_id}"},
    "PATCH /v1/pledges/{pledge_id}": {"minutes_per_month": 61},
    "POST /v1/rent-credits": {"organisation_id": "{organisation_id}", "minutes": 5},
    "POST /v1/solidarity/gifts": {"minutes": 1},
    "POST /v1/solidarity/requests": {"minutes": 1, "for": "balance"},
    "POST /v1/solidarity/requests/{request_id}/grant": {"minutes": 1},
    "POST /v1/transfers": {
        "from_account": "{account_id}",
        "to_account": "{other_account_id}",
        "minutes": 5,
    },
}


@dataclass
class World:
    federation: Federation
    things: dict[str, str]
    absent: dict[str, str]
    operations: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    @property
    def http(self) -> httpx.AsyncClient:
        return self.federation.bank("nantes").http

    def caller(self, role: str, city: str, member: str) -> Caller:
        sub = str(self.federation.bank(city).members[member])
        return Caller(self.http, token(sub, city=city, roles=("member", role)))

    async def ask(
        self,
        caller: Caller | None,
        method: str,
        path: str,
        spec: Any,
        things: dict[str, str],
        *,
        key: str | None = None,
        another: bool = False,
    ) -> httpx.Response:
        """`another`: a body that says something else."""
        query = {
            each["name"]: things[each["name"]]
            for each in spec.get("parameters", ())
            if each["in"] == "query" and each["name"] in things
        }
        headers = {"Idempotency-Key": key or str(new_id())}
        if caller:
            headers["Authorization"] = f"Bearer {caller.token}"
        body = BODIES.get(f"{method} {path}")
        if another and body is not None:
            body = body | changed(body)
        return await self.http.request(
            method,
            filled(path, things),
            params=query,
            headers=headers,
            json=filled(body, things) if body is not None else None,
        )

    async def rows(self) -> dict[str, list[str]]:
        """All that Nantes has, to the letter."""
        pool = self.federation.bank("nantes").pool
        tables = await pool.fetch(
            "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public'"
            " AND column_name = 'city_id' ORDER BY table_name"
        )
        found = {}
        for (table,) in tables:
            rows = await pool.fetch(f"SELECT t::text FROM \"{table}\" t WHERE city_id = 'nantes'")
            found[table] = sorted(row[0] for row in rows)
        return found


def changed(body: dict[str, Any]) -> dict[str, Any]:
    """Something else to say, that is as right as before."""
    for name in ("minutes", "version", "minutes_per_month", "grace_days", "limit_out_minutes"):
        if name in body:
            return {name: body[name] + 1}
    if "floor_minutes" in body:
        return {"floor_minutes": body["floor_minutes"] - 1}
    for name in ("title", "reason", "message"):
        if name in body:
            return {name: "Autre chose"}
    return {"owner_id": str(new_id())} if "owner_id" in body else {}


def filled(value: Any, things: dict[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda found: things[found[1]], value)
    if isinstance(value, dict):
        return {name: filled(item, things) for name, item in value.items()}
    if isinstance(value, list):
        return [filled(item, things) for item in value]
    return value


async def made(answer: httpx.Response, status: int = 201) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


@asynccontextmanager
async def a_full_city(
    make_database: Callable[[str, Path], Awaitable[str]],
) -> AsyncIterator[World]:
    """Nantes with one of everything, of Anna and Bruno; Zoé lives there too, Denis in Brest."""
    async with two_time_banks(make_database) as federation:
        await federation.make_keys()
        await federation.agree("nantes", "bourges")
        bank = federation.bank("nantes")
        for name in ("bruno", "zoe"):
            await bank.join(name, "nantes")
        await bank.join("eric", "brest")
        things = await one_of_everything(federation)
        absent = {name: ABSENT_CITY if name == "city_id" else str(new_id()) for name in things} | {
            name: things[name] for name in ("peer_city_id", "change", "answer", "table")
        }
        paths = bank.app.openapi()["paths"]
        operations = [
            (method.upper(), path, spec)
            for path, methods in paths.items()
            for method, spec in methods.items()
            if method in METHODS
        ]
        yield World(federation, things, absent, operations)


async def one_of_everything(federation: Federation) -> dict[str, str]:
    bank, steward = federation.bank("nantes"), federation.steward("nantes")
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    anna_id, bruno_id = str(bank.members["anna"]), str(bank.members["bruno"])
    mine, theirs = str(bank.accounts["anna"]), str(bank.accounts["bruno"])
    house = str(new_id())
    await made(await steward.put("books/nantes/rules", RULES), 200)
    await made(await steward.post("accounts", {"city_id": "nantes", "owner_id": house}))
    transfer = await made(await anna.pay(mine, theirs, 30, memo="private"))
    crossed = await federation.send("anna", "nantes", "chloe", "bourges", 20)
    await federation.deliver()
    hold = {"from_account": mine, "to_account": theirs, "minutes": 5, "expires_at": LATER}
    held = await made(await anna.post("holds", hold))
    to_bruno = {"kind": "member", "id": bruno_id}
    work = await made(await anna.post("contributions", WORK | {"beneficiary": to_bruno}))
    pledge = await made(await anna.post("pledges", {"minutes_per_month": 60}))
    help_ = {"minutes": 30, "for": "balance", "reason": "difficile"}
    asked = await made(await anna.post("solidarity/requests", help_))
    await made(await steward.post(f"members/{anna_id}/exemption", {"reason": "malade"}))
    rent = {"organisation_id": house, "minutes": 10}
    paid = await made(await anna.post("rent-credits", rent))
    plan = Plan(
        netting_id=new_id(),
        decider="bourges",
        moves=(
            Move("bourges", "nantes", 5, 20),
            Move("nantes", "brest", 5, 20),
            Move("brest", "bourges", 5, 20),
        ),
        expires_at=federation.clock() + timedelta(days=7),
    )
    async with bank.pool.acquire() as conn, conn.transaction():
        proposed = Kept(Netting(plan, "nantes", "proposed"), "bourges", federation.clock())
        await netting.add(conn, proposed)
    listing = await publish(anna, price_minutes=5)
    exchange = await ask(bruno, listing)
    return {
        "city_id": "nantes",
        "peer_city_id": "bourges",
        "change": "suspend",
        "answer": "refuse",
        "table": "positions",
        "netting_id": str(plan.netting_id),
        "member_id": anna_id,
        "owner_id": anna_id,
        "organisation_id": house,
        "account_id": mine,
        "other_account_id": theirs,
        "transfer_id": transfer["transfer_id"],
        "crossed_id": crossed["transfer_id"],
        "hold_id": held["hold_id"],
        "contribution_id": work["contribution_id"],
        "pledge_id": pledge["pledge_id"],
        "request_id": asked["request_id"],
        "rent_credit_id": paid["rent_credit_id"],
        "listing_id": listing,
        "exchange_id": exchange,
    }


def of_route(world: World, path: str) -> tuple[dict[str, str], dict[str, str]]:
    """What the names in a path stand for: here, and where there is nothing."""
    things, absent = world.things, world.absent
    if path.startswith("/v1/clearing/"):
        things = things | {"transfer_id": things["crossed_id"]}
    if "/log" in path:
        of_log = {"level": "0", "number": "0", "from": "0", "to": "1"}
        things, absent = things | of_log, absent | of_log
    return things, absent
