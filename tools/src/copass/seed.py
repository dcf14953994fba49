"""Fills an empty network with the demo data, through the services' own APIs.

Every request has an id or a key computed from the data, so a run that stopped half-way is finished
by the next one, and a second run changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from copass.demo_api import Api, ApiError, Login, Unreachable, base_urls, new_tap, open_api
from copass.demo_data import PASSWORD, Card, City, DemoNetwork, Door, Member, Place, demo_network
from copass.demo_life_data import demo_life
from copass.demo_state import ADMIN, DemoState, Home, load_state, save_state
from copass.seed_clearing import ClearingSeeder, pairs_of
from copass.seed_life import LifeSeeder

CONCURRENCY = 16  # requests under way; more only makes queues on a small machine
NEW_KEY_AFTER_S = 10.0
OPENED_WITHIN_S = 30.0  # from the last request until every door knows what it must
# What time heals: an earlier run was cut off with this request under way; the news of the city has
# not yet come to places.
LATER = frozenset({"request_in_progress", "unknown_city"})
LATER_TRIES, LATER_PAUSE_S = 150, 0.2
NEWS_UNDER_WAY = frozenset({401, 403, 404})  # access has not heard of the reader or the door
MADE = ("cities", "members", "cards", "places", "doors")
BLANK_CARD = "00B1A4C0"  # a card that nobody issued, with which an installer tests a door

T = TypeVar("T")
Advance = Callable[[str, int], None]


class Seeder:
    """One run. `keys`: door id → bearer token of its reader, as found so far."""

    def __init__(
        self, api: Api, network: DemoNetwork, keys: dict[UUID, str], advance: Advance
    ) -> None:
        self.api = api
        self.network = network
        self.keys = keys
        self.advance = advance
        self.slots = asyncio.Semaphore(CONCURRENCY)

    async def run(self) -> None:
        await self.each("cities", self.network.cities, self.city)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.people())
            group.create_task(self.each("places", self.network.places, self.place))
        life = LifeSeeder(self.api, self.network, self.make, self.advance)
        async with asyncio.TaskGroup() as group:
            group.create_task(life.run())
            group.create_task(ClearingSeeder(self.api, self.network, self.make, self.advance).run())
            group.create_task(self.each("opened", self.network.doors(), self.opened))

    async def people(self) -> None:
        await self.each("members", self.network.members, self.member)
        await self.each("cards", self.network.cards, self.card)

    async def each(
        self, name: str, things: Iterable[T], action: Callable[[T], Awaitable[None]]
    ) -> None:
        """Runs the action for all things, CONCURRENCY at a time; the first error stops all."""

        async def one(thing: T) -> None:
            async with self.slots:
                await action(thing)
            self.advance(name, 1)

        async with asyncio.TaskGroup() as group:
            for thing in things:
                group.create_task(one(thing))

    async def make(
        self,
        service: str,
        path: str,
        body: Mapping[str, Any] | None,
        name: str,
        *,
        method: str = "POST",
        login: Login = ADMIN,
    ) -> dict[str, Any] | None:
        """Sends one command. None when the thing is there already (409, or its id is taken)."""
        key = f"demo:{self.network.fingerprint}:{name}"
        for _ in range(LATER_TRIES):
            try:
                return await self.api.command(service, method, path, body, login=login, key=key)
            except ApiError as error:
                if error.code not in LATER:
                    if error.status == 409 or error.code.endswith("_id_reused"):
                        return None
                    raise
            await asyncio.sleep(LATER_PAUSE_S)
        raise Unreachable(f"{name}: not accepted after {LATER_TRIES} tries")

    async def city(self, city: City) -> None:
        body = {"city_id": city.city_id, "name": city.name, "timezone": city.timezone}
        await self.make("identity", "/v1/cities", body, f"city:{city.city_id}")

    async def member(self, member: Member) -> None:
        body = {
            "member_id": str(member.member_id),
            "city_id": member.city_id,
            "display_name": member.name,
        }
        if member.email is not None:
            body |= {"email": member.email, "password": PASSWORD}
        await self.make("identity", "/v1/members", body, f"member:{member.key}")
        if member.places or member.roles:
            roles = {"roles": list(member.roles), "places": member.places}
            path = f"/v1/members/{member.member_id}/roles"
            await self.make("identity", path, roles, f"roles:{member.key}", method="PUT")

    async def card(self, card: Card) -> None:
        body = {
            "card_id": str(card.card_id),
            "member_id": str(card.member_id),
            "type": "uid",
            "uid": card.uid,
        }
        await self.make("identity", "/v1/cards", body, f"card:{card.uid}")
        path = f"/v1/cards/{card.card_id}"
        if card.state == "blocked":
            name = f"block:{card.uid}"
            await self.make("identity", f"{path}/block", {"reason": "lost"}, name)
        elif card.replaced_by is not None:
            new = {"uid": card.replaced_by.uid, "card_id": str(card.replaced_by.card_id)}
            await self.make("identity", f"{path}/replace", new, f"replace:{card.uid}")

    async def place(self, place: Place) -> None:
        body = {"place_id": str(place.place_id), "city_id": place.city_id, **place.fields}
        await self.make("places", "/v1/places", body, f"place:{place.key}")
        for door in place.doors:
            await self.door(place, door)
            self.advance("doors", 1)

    async def door(self, place: Place, door: Door) -> None:
        body = {
            "door_id": str(door.door_id),
            "name": door.name,
            "kind": door.kind,
            "min_assurance": 1,
            "unlock_ms": 3000,
            "publics": ["network"] if door.kind == "public" else [],
        }
        path = f"/v1/places/{place.place_id}/doors"
        await self.make("places", path, body, f"door:{door.door_id}")
        await self.reader(place, door)
        reader = {"reader_id": str(door.reader_id)}
        path = f"/v1/doors/{door.door_id}/readers"
        await self.make("places", path, reader, f"link:{door.door_id}")

    async def reader(self, place: Place, door: Door) -> None:
        body = {"reader_id": str(door.reader_id), "city_id": place.city_id}
        made = await self.make("identity", "/v1/readers", body, f"reader:{door.reader_id}")
        if made is not None:
            self.keys[door.door_id] = str(made["key"])
        elif door.door_id not in self.keys:
            await self.new_key(door)

    async def new_key(self, door: Door) -> None:
        path = f"/v1/readers/{door.reader_id}/rotate"
        made = await self.api.command("identity", "POST", path, None, login=ADMIN)
        self.keys[door.door_id] = str(made["key"])

    async def opened(self, both: tuple[Place, Door]) -> None:
        """As an installer does: a blank card at the new door, until the door says no to it."""
        _place, door = both
        started, renewed = time.monotonic(), False
        while True:
            try:
                tap = new_tap(door.door_id, BLANK_CARD)
                answer = await self.api.tap(tap, self.keys[door.door_id])
            except ApiError as error:
                waited_s = time.monotonic() - started
                if error.status not in NEWS_UNDER_WAY:
                    raise
                if waited_s > OPENED_WITHIN_S:
                    raise Unreachable(f"door {door.door_id} is still unknown: {error}") from error
                if error.status == 401 and waited_s > NEW_KEY_AFTER_S and not renewed:
                    # Somebody gave the reader another key since the first one was told.
                    await self.new_key(door)
                    renewed = True
                await asyncio.sleep(0.3)
            else:
                if answer.reason != "unknown_credential":
                    raise Unreachable(f"door {door.door_id} answers {answer.reason}")
                return


def totals(network: DemoNetwork) -> dict[str, int]:
    doors = sum(1 for _ in network.doors())
    return {
        "cities": len(network.cities),
        "members": len(network.members),
        "cards": len(network.cards),
        "places": len(network.places),
        "doors": doors,
        "opened": doors,
        "life": sum(life.size for life in demo_life(network)),
        "agreements": len(pairs_of(network)),
    }


@asynccontextmanager
async def progress_bars(console: Console, network: DemoNetwork) -> AsyncIterator[Advance]:
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn())
    # Without a terminal the bars would be a page of noise.
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bars:
        tasks = {name: bars.add_task(name, total=n) for name, n in totals(network).items()}
        yield lambda name, n: bars.advance(tasks[name], n)


async def already_seeded(api: Api, network: DemoNetwork, state: DemoState | None) -> bool:
    """Whether an earlier run finished and the services still have what it made."""
    if state is None or not state.complete or state.fingerprint != network.fingerprint:
        return False
    place, door = list(network.doors())[-1]
    try:
        await api.get("places", f"/v1/places/{place.place_id}")
        await api.tap(new_tap(door.door_id, BLANK_CARD), state.reader_keys[door.door_id])
    except ApiError:
        return False
    return True


async def seed_network(
    home: Path, urls: Mapping[str, str], console: Console, network: DemoNetwork | None = None
) -> None:
    """Seeds, writes demo.json in `home`. Raises ApiError, Unreachable, perhaps in a group."""
    network = network or demo_network()
    started = time.monotonic()
    known = load_state(home)
    async with open_api(urls) as api:
        if await already_seeded(api, network, known):
            console.print(f"already seeded ({time.monotonic() - started:.2f} s)")
            return
        same = known is not None and known.fingerprint == network.fingerprint
        keys = dict(known.reader_keys) if known is not None and same else {}
        complete = False
        try:
            async with progress_bars(console, network) as advance:
                await Seeder(api, network, keys, advance).run()
            complete = True
        finally:  # keep the keys that were told, whatever happened
            save_state(home, network, DemoState(network.fingerprint, complete, keys))
    seconds = time.monotonic() - started
    made = ", ".join(f"{n} {name}" for name, n in totals(network).items() if name in MADE)
    console.print(f"seeded {made} in {seconds:.1f} s")


def seed(
    home: Home,
    port_base: Annotated[
        int, typer.Option(envvar="COPASS_PORT_BASE", help="The first port of the network.")
    ] = 8000,
) -> None:
    """Fill the running network with invented people and real places."""
    console = Console(stderr=True, soft_wrap=True)
    home.mkdir(parents=True, exist_ok=True)
    failed = False
    try:
        uvloop.run(seed_network(home, base_urls(port_base), console))
    except* (ApiError, Unreachable) as group:
        failed = True
        console.print(f"[red]seed:[/red] {first_leaf(group)}", highlight=False)
    if failed:
        raise typer.Exit(1)


def first_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def register(app: typer.Typer) -> None:
    app.command()(seed)
