"""Two to five cities over a network that loses, repeats, delays and reorders: the laws of clearing.

Planted bugs that the machine finds, each one tried below: a destination that decides again when it
is asked again; one that overlooks its limit; one that takes a transfer back twice; a source that
takes silence for a refusal; one that settles whenever it is told; one that never asks again.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from clearing_cities import START, City, Letter, check_always, check_at_rest, found, id_of

from timebank.clearing import domain as clearing
from timebank.clearing.domain import Agreement, Decision, Outgoing, Prepare

MEMBERS = 3
FLOOR = -600
STEPS = 60
EXAMPLES = 70


TROUBLES = st.sampled_from(
    [
        *["time passes"] * 4,
        *["a letter is lost"] * 3,
        "the broker comes back with an empty log",
        "a clock jumps",
        "an agreement is suspended or resumed",
        *["the destination has heard of a new limit"] * 2,
    ]
)


class Federation(RuleBasedStateMachine):
    """Every rule is something that the world does to the cities, or people in them."""

    def __init__(self) -> None:
        super().__init__()
        self.cities: dict[str, City] = {}
        self.letters: list[Letter] = []
        self.now = START
        self.count = 0

    @initialize(
        cities=st.integers(2, 5),
        limits=st.lists(st.integers(0, 600), min_size=20, max_size=20),
        levies=st.lists(st.sampled_from([0, 0, 50, 333]), min_size=40, max_size=40),
    )
    def begin(self, cities: int, limits: list[int], levies: list[int]) -> None:
        names = [f"city-{number}" for number in range(cities)]
        self.cities = found(names, MEMBERS, FLOOR)
        limit = {(a, b): limits[i] for i, (a, b) in enumerate(pairs(names))}
        for i, (a, b) in enumerate(pairs(names)):
            self.cities[a].agreements[b] = Agreement(
                b,
                "active",
                limit_out_minutes=limit[a, b],
                limit_in_minutes=limit[b, a],
                levy_out_permille=levies[i],
                levy_in_permille=levies[20 + i],
            )

    def some_city(self, number: int) -> City:
        return list(self.cities.values())[number % len(self.cities)]

    def time_in(self, city: City) -> Any:
        return self.now + city.skew

    @rule(
        source=st.integers(0, 4),
        step=st.integers(1, 4),
        payer=st.integers(0, MEMBERS - 1),
        payee=st.integers(0, MEMBERS),
        minutes=st.integers(1, 120),
        patience=st.sampled_from([10, 600, 3600, 7200]),
    )
    def give(
        self, source: int, step: int, payer: int, payee: int, minutes: int, patience: int
    ) -> None:
        city = self.some_city(source)
        to = self.some_city(source + 1 + step % max(1, len(self.cities) - 1))
        if to is city:
            return
        self.count += 1
        # Number MEMBERS is nobody: the destination refuses.
        prepare = Prepare(
            id_of("transfer", self.count),
            city.name,
            to.name,
            minutes,
            to.member(payee),
            self.time_in(city) + timedelta(seconds=patience),
        )
        self.post(city.send(prepare, city.member(payer), self.time_in(city)))

    @rule(pick=st.integers(0, 10_000), patience=st.sampled_from([10, 600, 3600, 7200]))
    def take_back(self, pick: int, patience: int) -> None:
        """The stewards of both cities agreed that an exchange did not happen."""
        arrived = [
            (city, prepare)
            for city in self.cities.values()
            for prepare, decision, _ in city.incoming.values()
            if decision.accepted and prepare.reverses is None
        ]
        if not arrived:
            return
        city, original = arrived[pick % len(arrived)]
        source = self.cities[original.from_city]
        payer = source.accounts[source.outgoing[original.transfer_id].payer_account].owner_id
        assert payer is not None
        self.count += 1
        prepare = Prepare(
            id_of("reversal", self.count),
            city.name,
            source.name,
            original.minutes,
            payer,
            self.time_in(city) + timedelta(seconds=patience),
            reverses=original.transfer_id,
        )
        self.post(city.send(prepare, original.payee, self.time_in(city)))

    def post(self, letter: Letter | None) -> None:
        if letter is not None:
            self.letters.append(letter)
            if self.count % 2:  # every other one meets no trouble on its way there
                self.deliver(len(self.letters) - 1, again=False)

    @rule(picks=st.lists(st.integers(0, 10_000), min_size=1, max_size=12), again=st.booleans())
    def deliver_some(self, picks: list[int], again: bool) -> None:
        """Any letters, in any order; they may come again."""
        for pick in picks:
            self.deliver(pick, again)
            check_always(self.cities)

    def deliver(self, pick: int, again: bool) -> None:
        if not self.letters:
            return
        place = pick % len(self.letters)
        letter = self.letters[place]
        if not again:
            del self.letters[place]
        city = self.cities[letter.to]
        if letter.prepare is not None:
            self.letters.append(city.asked(letter.prepare, self.time_in(city)))
        elif letter.decision is not None:
            city.hear(letter.decision)

    @rule(trouble=TROUBLES, pick=st.integers(0, 10_000), other=st.integers(0, 4))
    def something_happens(self, trouble: str, pick: int, other: int) -> None:
        one, peer = self.some_city(pick), self.some_city(other)
        agreement = one.agreements.get(peer.name)
        if trouble == "a letter is lost" and self.letters:
            del self.letters[pick % len(self.letters)]
        elif trouble == "the broker comes back with an empty log":
            self.letters.clear()
        elif trouble == "time passes":
            self.now += timedelta(seconds=pick % 90)
            self.ask_again()
        elif trouble == "a clock jumps":
            one.skew = timedelta(minutes=other * 5 - 10)
        elif agreement and trouble == "an agreement is suspended or resumed":
            state: Any = "active" if agreement.state == "suspended" else "suspended"
            one.agreements[peer.name] = replace(agreement, state=state)
        elif agreement and trouble == "the destination has heard of a new limit":
            limit = max(pick % 100, one.pair(peer.name).in_minutes)
            one.agreements[peer.name] = replace(agreement, limit_in_minutes=limit)

    def ask_again(self) -> None:
        for city in self.cities.values():
            self.letters += city.queries(self.time_in(city))

    @invariant()
    def holds(self) -> None:
        check_always(self.cities)

    def teardown(self) -> None:
        """The network heals: whatever is asked from now on gets through."""
        if not self.cities:
            return
        for _ in range(4):
            self.now += timedelta(hours=1)
            self.ask_again()
            while self.letters:
                self.deliver(0, again=False)
            check_always(self.cities)
        check_at_rest(self.cities)


def pairs(names: list[str]) -> Iterator[tuple[str, str]]:
    return ((a, b) for a in names for b in names if a != b)


def run(examples: int) -> None:
    run_state_machine_as_test(
        Federation,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_pair_agrees_once_messages_get_through() -> None:
    run(EXAMPLES)


real = {name: getattr(clearing, name) for name in ("refuse", "conclude", "next_query_at")}
real_asked, real_hear, real_queries = City.asked, City.hear, City.queries


def decides_again(city: City, prepare: Prepare, now: Any) -> Letter:
    city.incoming.pop(prepare.transfer_id, None)
    return real_asked(city, prepare, now)


def overlooks(reason: str) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        found = real["refuse"](*args, **kwargs)
        return None if found == reason else found

    return refuse


def takes_silence_for_a_refusal(city: City, now: Any) -> list[Letter]:
    for each, outgoing in list(city.outgoing.items()):
        if outgoing.is_overdue(now):
            real_hear(city, Decision(each, "deadline_passed", now))
    return real_queries(city, now)


def settles_twice(outgoing: Outgoing, answer: Decision) -> Any:
    found = real["conclude"](outgoing, answer)
    return "settle" if found == "nothing" and answer.accepted else found


def never_asks_again(outgoing: Outgoing) -> Any:
    return START + timedelta(days=10_000)


BUGS: dict[str, tuple[Any, str, Any]] = {
    "decides again": (City, "asked", decides_again),
    "overlooks the limit": (clearing, "refuse", overlooks("limit_reached")),
    "reverses twice": (clearing, "refuse", overlooks("already_reversed")),
    "takes silence for a refusal": (City, "queries", takes_silence_for_a_refusal),
    "settles twice": (clearing, "conclude", settles_twice),
    "never asks again": (clearing, "next_query_at", never_asks_again),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, wrong = BUGS[bug]
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(AssertionError):
        run(EXAMPLES)
