"""The story of the network, told step by step on the terminal, each step checked: the first door,
then the life around the time bank (demo_life.py).

Every step restores what it needs before it begins, so the story can be told any number of times.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
import uvloop
from rich.console import Console

from copass.demo_api import (
    SERVICES,
    Api,
    ApiError,
    Direction,
    Tap,
    TapAnswer,
    Unreachable,
    new_tap,
    open_api,
)
from copass.demo_clearing import CLEARING_STEPS
from copass.demo_data import Card, DemoNetwork, Door, demo_network
from copass.demo_evidence import EVIDENCE_STEPS
from copass.demo_life import LIFE_STEPS
from copass.demo_state import (
    ADMIN,
    DemoState,
    Home,
    NotSeeded,
    login_of,
    need_state,
    service_urls,
    steward_of,
)
from copass.demo_story import Failed as Failed
from copass.demo_story import Lang as Lang
from copass.demo_story import Step
from copass.demo_story import expect as expect
from copass.statistics import percentiles

EFFECT_WITHIN_S = 30.0  # how long a block or an unblock may take to arrive before a step fails
UNKNOWN_UID = "00DEADBEEF0000"
BENCH_TRIALS = 200


class Story:
    """The network, and the words of the language chosen."""

    def __init__(self, api: Api, network: DemoNetwork, state: DemoState, lang: Lang) -> None:
        self.api = api
        self.network = network
        self.state = state
        self.lang = lang

    def say(self, fr: str, en: str) -> str:
        return fr if self.lang is Lang.fr else en

    def door(self, place_key: str, kind: str = "public") -> Door:
        return next(one for one in self.network.place(place_key).doors if one.kind == kind)

    async def tap(self, door: Door, uid: str, direction: Direction = "in") -> TapAnswer:
        return await self.send(new_tap(door.door_id, uid, direction))

    async def send(self, tap: Tap) -> TapAnswer:
        return await self.api.tap(tap, self.state.reader_keys[tap.door_id])

    def quote(self, answer: TapAnswer) -> str:
        return f"« {answer.message[self.lang]} » ({answer.reason}, {answer.elapsed_ms:.1f} ms)"

    # --- what a step restores -----------------------------------------------------------------

    async def until(self, door: Door, uid: str, decision: str) -> TapAnswer:
        """Taps again and again until the door answers so."""
        deadline = time.monotonic() + EFFECT_WITHIN_S
        while True:
            answer = await self.tap(door, uid)
            if answer.decision == decision:
                return answer
            if time.monotonic() > deadline:
                raise Failed(f"{answer.decision} ({answer.reason}) after {EFFECT_WITHIN_S:.0f} s")
            await asyncio.sleep(0.002)

    async def unblock(self, card: Card) -> None:
        """Whatever an earlier run left: afterwards the card is active where identity decides."""
        try:
            await self.command(f"/v1/cards/{card.card_id}/unblock", None)
        except ApiError as error:
            if error.status != 409:  # it is active already
                raise

    async def block(self, card: Card) -> None:
        await self.command(f"/v1/cards/{card.card_id}/block", {"reason": "lost"})

    async def command(self, path: str, body: Mapping[str, Any] | None) -> None:
        await self.api.command("identity", "POST", path, body, login=steward_of("bourges"))

    # --- the steps ----------------------------------------------------------------------------

    async def everybody_ready(self) -> str:
        late = [name for name in SERVICES if not await self.api.ready(name)]
        if late:
            raise Failed(", ".join(late))
        network = self.network
        return self.say(
            f"{len(network.cities)} cités, {len(network.places)} lieux, "
            f"{len(network.members)} membres inventés",
            f"{len(network.cities)} cities, {len(network.places)} places, "
            f"{len(network.members)} invented members",
        )

    async def granted_elsewhere(self) -> str:
        card, door = self.network.card_of("demo-traveller"), self.door("demo-night")
        await self.unblock(card)  # whoever tried the portal first has blocked it
        await self.until(door, card.uid, "grant")
        tap = new_tap(door.door_id, card.uid)
        answer = expect(await self.send(tap), "grant", "network_member")
        again = await self.send(tap)
        if again.decision_id != answer.decision_id:
            raise Failed("the same tap, sent again, was decided again")
        return self.quote(answer)

    async def unknown_card(self) -> str:
        answer = await self.tap(self.door("demo-night"), UNKNOWN_UID)
        return self.quote(expect(answer, "deny", "unknown_credential"))

    async def malformed_card(self) -> str:
        try:
            await self.tap(self.door("demo-night"), "04-NOT-HEX")
        except ApiError as error:
            if error.status != 422:
                raise
            return f"422 {error.code}: {', '.join(error.fields)}"
        raise Failed("the tap was decided")

    async def front_door(self) -> str:
        door = self.door("house-bourges", "private")
        visitor = self.network.card_of("demo-traveller").uid
        resident = self.network.card_of("demo-resident").uid
        refused = expect(await self.tap(door, visitor), "deny", "not_entitled")
        answer = expect(await self.tap(door, resident), "grant", "resident")
        return f"{self.quote(refused)} / {self.quote(answer)}"

    async def lost_card(self) -> str:
        card = self.network.card_of("demo-loser")
        await self.unblock(card)
        door = self.door("demo-night")
        await self.until(door, card.uid, "grant")
        try:
            latency_ms, answer = await block_to_deny(self, card, door)
            expect(answer, "deny", "credential_blocked")
        finally:
            await self.unblock(card)
        return self.say(
            f"{latency_ms:.0f} ms après la réponse au blocage : {self.quote(answer)}",
            f"{latency_ms:.0f} ms after the answer to the block: {self.quote(answer)}",
        )

    async def outside_hours(self) -> str:
        uid = self.network.card_of("demo-traveller").uid
        answer = await self.tap(self.door("demo-closed"), uid)
        return self.quote(expect(answer, "deny", "outside_hours"))

    async def full(self) -> str:
        door = self.door("demo-small")
        first, second, third = (
            self.network.card_of(f"demo-{name}").uid for name in ("first", "second", "third")
        )

        async def everybody_out() -> None:
            for uid in (first, second, third):
                expect(await self.tap(door, uid, "out"), "grant", "exit")

        await everybody_out()
        try:
            expect(await self.tap(door, first), "grant", "network_member")
            expect(await self.tap(door, second), "grant", "network_member")
            refused = expect(await self.tap(door, third), "deny", "place_full")
            expect(await self.tap(door, first, "out"), "grant", "exit")
            expect(await self.tap(door, third), "grant", "network_member")
        finally:
            await everybody_out()
        return self.quote(refused) + self.say(
            ", puis une place se libère", ", then somebody leaves and the third one enters"
        )

    async def handed_back(self) -> str:
        door = self.door("demo-airlock")
        uid = self.network.card_of("demo-traveller").uid
        expect(await self.tap(door, uid, "out"), "grant", "exit")
        expect(await self.tap(door, uid), "grant", "network_member")
        try:
            refused = expect(await self.tap(door, uid), "deny", "passback")
        finally:
            expect(await self.tap(door, uid, "out"), "grant", "exit")
        return self.quote(refused)

    async def ninety_minutes(self) -> str:
        """From the richer of the two to the other one, so that no floor is ever reached."""
        people = [self.network.member(key) for key in ("demo-traveller", "demo-resident")]
        accounts = [await self.account(str(member.member_id)) for member in people]
        order = sorted((0, 1), key=lambda n: -int(accounts[n]["balance_minutes"]))
        payer, payee = (people[n] for n in order)
        before = [accounts[n] for n in order]
        body = {
            "from_account": before[0]["account_id"],
            "to_account": before[1]["account_id"],
            "minutes": 90,
            "memo": "Démo : deux fournées de pain",
        }
        key = str(uuid4())
        first, again = [
            await self.api.command(
                "timebank", "POST", "/v1/transfers", body, login=login_of(payer), key=key
            )
            for _ in range(2)
        ]
        if first != again:
            raise Failed("the same request, sent again, was posted again")
        moved = [
            int((await self.account(str(member.member_id)))["balance_minutes"])
            - int(account["balance_minutes"])
            for member, account in zip((payer, payee), before, strict=True)
        ]
        if moved != [-90, 90]:
            raise Failed(f"{payer.name} {moved[0]:+}, {payee.name} {moved[1]:+}")
        return self.say(
            f"{payer.name} donne 90 minutes à {payee.name} ; demandé deux fois, compté une fois",
            f"{payer.name} gives {payee.name} 90 minutes; asked twice, counted once",
        )

    async def account(self, owner_id: str) -> dict[str, Any]:
        """A member's account appears when the event has arrived; waited for, within a bound."""
        deadline = time.monotonic() + EFFECT_WITHIN_S
        while True:
            found = await self.api.get(
                "timebank", "/v1/accounts", steward_of("bourges"), owner_id=owner_id
            )
            if found["items"]:
                return dict(found["items"][0])
            if time.monotonic() > deadline:
                raise Failed(f"no account of {owner_id}")
            await asyncio.sleep(0.05)

    async def sum_is_zero(self) -> str:
        cities = [city.city_id for city in self.network.cities]
        books = [await self.api.get("timebank", f"/v1/books/{one}", ADMIN) for one in cities]
        wrong = {book["city_id"]: book["sum_minutes"] for book in books if book["sum_minutes"]}
        if wrong:
            raise Failed(json.dumps(wrong))
        accounts, transfers = (
            sum(int(book[name]) for book in books) for name in ("accounts", "transfers")
        )
        return self.say(
            f"{len(books)} livres, {accounts} comptes, {transfers} transferts : somme 0",
            f"{len(books)} books, {accounts} accounts, {transfers} transfers: sum 0",
        )


async def block_to_deny(story: Story, card: Card, door: Door) -> tuple[float, TapAnswer]:
    """Milliseconds from the answer to a block until a tap is first denied; taps go on meanwhile.

    A tap that was denied before the answer to the block had arrived counts as 0.
    """
    denied = asyncio.create_task(first_denial(story, card, door))
    try:
        await asyncio.sleep(0)  # the tapping begins before the block
        await story.block(card)
        acknowledged = time.perf_counter()
        async with asyncio.timeout(EFFECT_WITHIN_S):
            when, answer = await denied
    except TimeoutError:
        raise Failed(f"still granted {EFFECT_WITHIN_S:.0f} s after the block") from None
    finally:
        denied.cancel()
    return max(0.0, when - acknowledged) * 1000, answer


async def first_denial(story: Story, card: Card, door: Door) -> tuple[float, TapAnswer]:
    while True:
        answer = await story.tap(door, card.uid)
        if not answer.granted:
            return time.perf_counter(), answer


STEPS = (
    Step({"fr": "Les services sont prêts", "en": "The services are ready"}, Story.everybody_ready),
    Step(
        {
            "fr": "Une membre de Bourges entre à Nantes",
            "en": "A member of Bourges enters in Nantes",
        },
        Story.granted_elsewhere,
    ),
    Step({"fr": "Une carte inconnue", "en": "An unknown card"}, Story.unknown_card),
    Step({"fr": "Une carte mal lue", "en": "A card badly read"}, Story.malformed_card),
    Step(
        {"fr": "La porte des résidents", "en": "The residents' front door"},
        Story.front_door,
    ),
    Step({"fr": "Une carte perdue est bloquée", "en": "A lost card is blocked"}, Story.lost_card),
    Step({"fr": "Un lieu fermé", "en": "A place that is closed"}, Story.outside_hours),
    Step({"fr": "Un studio pour deux", "en": "A studio for two"}, Story.full),
    Step({"fr": "Une carte passée à un ami", "en": "A card handed to a friend"}, Story.handed_back),
    Step(
        {"fr": "Un transfert de 90 minutes", "en": "A transfer of 90 minutes"}, Story.ninety_minutes
    ),
    *LIFE_STEPS,
    *CLEARING_STEPS,
    Step({"fr": "La somme des soldes", "en": "The sum of all balances"}, Story.sum_is_zero),
    *EVIDENCE_STEPS,
)


async def tell(story: Story, console: Console) -> bool:
    """Tells all steps; True when each held. A step that fails does not stop the next."""
    held = True
    for number, step in enumerate(STEPS, 1):
        title = f"{number:2}/{len(STEPS)} {step.title[story.lang]}"
        try:
            detail = await step.tell(story)
        except (Failed, ApiError, Unreachable) as error:
            held = False
            console.print(f"[red]✗[/red] [bold]{title}[/bold]: {error}", highlight=False)
        else:
            console.print(f"[green]✓[/green] [bold]{title}[/bold]: {detail}", highlight=False)
    return held


async def bench(story: Story, console: Console, trials: int) -> bool:
    """Blocks one card `trials` times; prints how long the doors took to know, in ms."""
    card, door = story.network.card_of("demo-loser"), story.door("demo-night")
    latencies_ms: list[float] = []
    try:
        for _ in range(trials):
            await story.unblock(card)
            await story.until(door, card.uid, "grant")
            latency_ms, answer = await block_to_deny(story, card, door)
            expect(answer, "deny", "credential_blocked")
            latencies_ms.append(latency_ms)
    finally:
        await story.unblock(card)
    figures = percentiles(latencies_ms)
    text = "  ".join(f"{name} {value:.1f} ms" for name, value in figures.items())
    console.print(
        story.say(f"blocage → refus, {trials} essais : ", f"block → deny, {trials} trials: ")
        + text,
        highlight=False,
    )
    return True


async def run_demo(home: Path, lang: Lang, trials: int, console: Console) -> bool:
    network = demo_network()
    state, urls = need_state(home, network), service_urls(home)
    async with open_api(urls) as api:
        story = Story(api, network, state, lang)
        held = await tell(story, console)
        if trials and held:
            held = await bench(story, console, trials)
    console.print(
        story.say("Tout a tenu.", "All of it held.")
        if held
        else story.say("Une étape n'a pas tenu.", "A step did not hold."),
        style="bold green" if held else "bold red",
    )
    return held


def demo(
    home: Home,
    lang: Annotated[Lang, typer.Option(help="Language of the story.")] = Lang.fr,
    bench: Annotated[
        bool, typer.Option(envvar="BENCH", help="Measure block to deny over many trials.")
    ] = False,
    trials: Annotated[int, typer.Option(min=1, max=10_000)] = BENCH_TRIALS,
) -> None:
    """Tell the story of a door and of a life; exit code 0 only if every step held."""
    console = Console(soft_wrap=True)
    try:
        held = uvloop.run(run_demo(home, lang, trials if bench else 0, console))
    except (NotSeeded, Failed, ApiError, Unreachable) as error:
        console.print(f"[red]demo:[/red] {error}", highlight=False)
        raise typer.Exit(1) from error
    if not held:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    app.command()(demo)
