"""Plays a day of taps against the running network and keeps an account of every answer.

The plan comes from the seed alone. What the network makes of it may differ with the hour (places
have real hours), but each tap that got an answer must afterwards be in the history exactly once:
`--verify` asks the access service for its history and compares.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID, uuid4, uuid5

import typer
import uvloop
from rich.console import Console
from rich.live import Live
from rich.table import Table

from copass.demo_api import Api, ApiError, Tap, Unreachable, open_api
from copass.demo_data import Card, DemoNetwork, Door, Member, Place, demo_network
from copass.demo_state import DemoState, Home, NotSeeded, need_state, service_urls, steward_of
from copass.simulate_plan import Day, Entrance, PlannedLoss, PlannedTap, Visitor, plan_day
from copass.statistics import percentiles

IN_FLIGHT_MAX = 64  # a network slower than the plan delays it, rather than filling the memory
RETRY_FOR_S = 90.0  # longer than any process takes to come back, shorter than a live tap may be old
VERIFY_WITHIN_S = 60.0
PAGE = 200
STRANGER_UID = "00FACADE000000"


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answered:
    """One tap as the door answered it."""

    tap_id: str
    decision_id: str
    decision: str
    reason: str
    place_id: str
    city_id: str
    latency_ms: float


@dataclass(slots=True)
class Account:
    """What happened so far."""

    planned: int
    sent: int = 0
    answered: list[Answered] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)  # tap ids without any answer
    refused: list[str] = field(default_factory=list)  # taps and blocks: none is expected
    blocked: list[str] = field(default_factory=list)  # card ids
    late_s: float = 0.0

    def reasons(self) -> Counter[str]:
        return Counter(one.reason for one in self.answered)

    def granted(self) -> int:
        return sum(1 for one in self.answered if one.decision == "grant")


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays, by the indexes of the plan."""

    members: Sequence[tuple[Member, Card]]
    doors: Sequence[tuple[Place, Door]]


def choose_cast(network: DemoNetwork, members: int, doors: int) -> Cast:
    """The first ones, spread over the cities; neither those nor the places of the demonstration."""
    cards = {card.member_id: card for card in network.cards if card.state == "active"}
    people = [
        (member, cards[member.member_id])
        for member in network.members
        if member.member_id in cards and not member.key.startswith("demo-")
    ]
    entrances = [
        (place, door)
        for place, door in network.doors()
        if door.kind == "public" and not place.key.startswith("demo-")
    ]
    # Houses are open day and night: with them first, something is open whatever the hour.
    entrances.sort(key=lambda one: not one[0].always_open)
    return Cast(
        spread(people, lambda one: one[0].city_id)[:members],
        spread(entrances, lambda one: one[0].city_id)[:doors],
    )


def spread(things: Iterable[T], city: Callable[[T], str]) -> list[T]:
    """The first of each city, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    ranked = []
    for thing in things:
        ranked.append((seen[city(thing)], thing))
        seen[city(thing)] += 1
    return [thing for _rank, thing in sorted(ranked, key=lambda one: one[0])]


def plan_for(cast: Cast, seed: int, taps_per_second: float, minutes: float) -> Day:
    return plan_day(
        seed,
        [Visitor(member.city_id) for member, _card in cast.members],
        [Entrance(place.city_id) for place, _door in cast.doors],
        taps_per_second=taps_per_second,
        minutes=minutes,
    )


class Player:
    """Plays one day. `run_id` makes the tap ids of this run different from those of any other."""

    def __init__(self, api: Api, state: DemoState, cast: Cast, day: Day, run_id: UUID) -> None:
        self.api = api
        self.state = state
        self.cast = cast
        self.day = day
        self.run_id = run_id
        self.slots = asyncio.Semaphore(IN_FLIGHT_MAX)
        self.account = Account(planned=len(day.taps))

    async def play(self) -> None:
        """Every planned thing at its moment; returns when all are answered or given up."""
        for loss in self.day.losses:  # an earlier run may have been cut off before it did
            await self.find_again(loss)
        started = time.monotonic()
        events: list[PlannedTap | PlannedLoss] = [*self.day.taps, *self.day.losses]
        events.sort(key=lambda event: event.at_s)
        try:
            async with asyncio.TaskGroup() as group:
                for number, event in enumerate(events):
                    await asyncio.sleep(max(0.0, started + event.at_s - time.monotonic()))
                    await self.slots.acquire()
                    late_s = time.monotonic() - started - event.at_s
                    self.account.late_s = max(self.account.late_s, late_s)
                    group.create_task(self.play_one(number, event))
        finally:
            for loss in self.day.losses:
                await self.find_again(loss)

    async def play_one(self, number: int, event: PlannedTap | PlannedLoss) -> None:
        try:
            if isinstance(event, PlannedLoss):
                await self.lose(event)
            else:
                await self.tap(number, event)
        finally:
            self.slots.release()

    async def tap(self, number: int, planned: PlannedTap) -> None:
        place, door = self.cast.doors[planned.door]
        _member, card = self.cast.members[planned.member]
        tap = Tap(
            uuid5(self.run_id, str(number)),
            door.door_id,
            STRANGER_UID if planned.actor == "stranger" else card.uid,
            planned.direction,
            datetime.now(UTC),
        )
        self.account.sent += 1
        key = self.state.reader_keys[door.door_id]
        try:
            answer = await self.api.tap(tap, key)
        except Unreachable:
            self.account.unanswered.append(str(tap.tap_id))
        except ApiError as error:
            self.account.refused.append(f"{tap.tap_id}: {error}")
        else:
            self.account.answered.append(
                Answered(
                    str(tap.tap_id),
                    answer.decision_id,
                    answer.decision,
                    answer.reason,
                    str(place.place_id),
                    place.city_id,
                    round(answer.elapsed_ms, 2),
                )
            )

    async def lose(self, loss: PlannedLoss) -> None:
        member, card = self.cast.members[loss.member]
        path, login = f"/v1/cards/{card.card_id}/block", steward_of(member.city_id)
        try:
            await self.api.command("identity", "POST", path, {"reason": "lost"}, login=login)
        except (ApiError, Unreachable) as error:
            self.account.refused.append(f"block {card.card_id}: {error}")
        else:
            self.account.blocked.append(str(card.card_id))

    async def find_again(self, loss: PlannedLoss) -> None:
        member, card = self.cast.members[loss.member]
        path = f"/v1/cards/{card.card_id}/unblock"
        try:
            await self.api.command("identity", "POST", path, None, login=steward_of(member.city_id))
        except ApiError as error:
            if error.status != 409:  # it was not blocked
                raise


# --- the comparison with the history --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with the history, as tap ids. All empty: each answered tap is there once."""

    missing: tuple[str, ...]
    duplicated: tuple[str, ...]
    different: tuple[str, ...]  # another decision than the door got

    @property
    def clean(self) -> bool:
        return not (self.missing or self.duplicated or self.different)


def compare(answered: Sequence[Answered], history: Iterable[Mapping[str, Any]]) -> Findings:
    """`history`: rows with tap_id, decision_id and decision. Rows of other taps are ignored.

    A tap that never got an answer may be in the history or not: give its row, it is not compared.
    """
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in history:
        rows.setdefault(str(row["tap_id"]), []).append(row)
    missing, duplicated, different = [], [], []
    for one in answered:
        found = rows.get(one.tap_id, [])
        if not found:
            missing.append(one.tap_id)
        elif len(found) > 1:
            duplicated.append(one.tap_id)
        elif (str(found[0]["decision_id"]), found[0]["decision"]) != (
            one.decision_id,
            one.decision,
        ):
            different.append(one.tap_id)
    return Findings(tuple(missing), tuple(duplicated), tuple(different))


async def history_since(
    api: Api, place_id: str, city_id: str, since: datetime
) -> list[dict[str, Any]]:
    """Every row of one place's history from a moment on."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        params = {"place_id": place_id, "since": since.isoformat(), "limit": PAGE}
        if cursor is not None:
            params["cursor"] = cursor
        page = await api.get("access", "/v1/taps", steward_of(city_id), **params)
        rows += page["items"]
        cursor = page["next"]
        if cursor is None:
            return rows


async def verify(api: Api, answered: Sequence[Answered], since: datetime) -> Findings:
    """Reads the history until it holds every answered tap, for VERIFY_WITHIN_S at most."""
    deadline = time.monotonic() + VERIFY_WITHIN_S
    places = sorted({(one.place_id, one.city_id) for one in answered})
    while True:
        rows = []
        for place_id, city_id in places:
            rows += await history_since(api, place_id, city_id, since)
        findings = compare(answered, rows)
        if not findings.missing or time.monotonic() > deadline:
            return findings
        await asyncio.sleep(1)


# --- what the person sees -------------------------------------------------------------------------


def table(account: Account, elapsed_s: float, retries: int) -> Table:
    shown = Table(show_header=False, box=None)
    shown.add_row("taps", f"{account.sent} / {account.planned}")
    shown.add_row("per second", f"{account.sent / max(elapsed_s, 0.001):.0f}")
    shown.add_row("granted", str(account.granted()))
    for reason, count in account.reasons().most_common(8):
        shown.add_row(f"  {reason}", str(count))
    shown.add_row("cards blocked", str(len(account.blocked)))
    shown.add_row("sent again", str(retries))
    shown.add_row("without answer", str(len(account.unanswered)))
    return shown


def line(account: Account, elapsed_s: float, retries: int) -> str:
    return (
        f"{elapsed_s:5.0f} s  {account.sent}/{account.planned} taps, {account.granted()} granted, "
        f"{len(account.answered) - account.granted()} denied, {len(account.blocked)} blocked, "
        f"{retries} sent again, {len(account.unanswered)} without answer"
    )


@asynccontextmanager
async def shown(player: Player, console: Console) -> AsyncIterator[None]:
    """A live table on a terminal, a line every few seconds elsewhere."""
    started = time.monotonic()

    async def keep_showing(live: Live | None) -> None:
        while True:
            await asyncio.sleep(0.5 if live else 5)
            elapsed_s = time.monotonic() - started
            if live is not None:
                live.update(table(player.account, elapsed_s, player.api.retries))
            else:
                console.print(line(player.account, elapsed_s, player.api.retries))

    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            task = asyncio.create_task(keep_showing(live))
            try:
                yield
            finally:
                task.cancel()
    else:
        task = asyncio.create_task(keep_showing(None))
        try:
            yield
        finally:
            task.cancel()
    console.print(line(player.account, time.monotonic() - started, player.api.retries))


def report_of(player: Player, seed: int, started: datetime, findings: Findings | None) -> Any:
    """The run as JSON: counts, then every answered tap, so that another program can compare."""
    account = player.account
    return {
        "run_id": str(player.run_id),
        "seed": seed,
        "started_at": started.isoformat(),
        "planned": account.planned,
        "answered": len(account.answered),
        "granted": account.granted(),
        "reasons": dict(account.reasons().most_common()),
        "visits_to_other_cities": player.day.visits_to_other_cities,
        "blocked_cards": account.blocked,
        "sent_again": player.api.retries,
        "late_s_max": round(account.late_s, 3),
        "latency_ms": percentiles(one.latency_ms for one in account.answered)
        if account.answered
        else {},
        "unanswered": account.unanswered,
        "refused": account.refused,
        "history": None if findings is None else asdict(findings),
        "taps": [asdict(one) for one in account.answered],
    }


async def run_day(
    home: Path,
    cast: Cast,
    day: Day,
    *,
    seed: int,
    report: Path | None,
    check: bool,
    console: Console,
) -> bool:
    """Plays, reports, compares. True when every tap was answered, and the history is right."""
    state, urls = need_state(home, demo_network()), service_urls(home)
    started = datetime.now(UTC)
    findings = None
    async with open_api(urls, connections=IN_FLIGHT_MAX + 4, retry_for_s=RETRY_FOR_S) as api:
        player = Player(api, state, cast, day, uuid4())
        async with shown(player, console):
            await player.play()
        if check:
            # The clock of the machine is everybody's here; a second more harms nobody.
            findings = await verify(api, player.account.answered, started - timedelta(seconds=1))
            console.print(
                f"history: {len(findings.missing)} missing, {len(findings.duplicated)} twice, "
                f"{len(findings.different)} different, of {len(player.account.answered)} answered"
            )
    if report is not None:
        text = json.dumps(report_of(player, seed, started, findings), indent=1)
        await asyncio.to_thread(report.write_text, text, encoding="utf-8")
        console.print(f"report: {report}")
    account = player.account
    held = not account.refused and not account.unanswered
    return held and (findings is None or findings.clean)


def simulate(
    home: Home,
    members: Annotated[int, typer.Option(min=1, help="How many people play.")] = 300,
    doors: Annotated[int, typer.Option(min=1, help="At how many doors.")] = 80,
    taps_per_second: Annotated[float, typer.Option(min=0.1, max=2000)] = 30,
    minutes: Annotated[float, typer.Option(min=0.05, max=1440, help="Length of the day.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed plans the same day.")] = 1,
    report: Annotated[Path | None, typer.Option(help="Write every answer there, as JSON.")] = None,
    verify: Annotated[
        bool, typer.Option(help="Afterwards compare with the access history.")
    ] = False,
) -> None:
    """Play a plausible day at the doors: peaks, visitors of other cities, lost cards."""
    console = Console(highlight=False, soft_wrap=True)
    cast = choose_cast(demo_network(), members, doors)
    day = plan_for(cast, seed, taps_per_second, minutes)
    console.print(
        f"{len(day.taps)} taps of {len(cast.members)} members at {len(cast.doors)} doors, "
        f"{day.visits_to_other_cities} visits to other cities, {len(day.losses)} cards lost"
    )
    try:
        held = uvloop.run(
            run_day(home, cast, day, seed=seed, report=report, check=verify, console=console)
        )
    except (NotSeeded, ApiError, Unreachable) as error:
        console.print(f"simulate: {error}")
        raise typer.Exit(1) from error
    if not held:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    app.command()(simulate)
