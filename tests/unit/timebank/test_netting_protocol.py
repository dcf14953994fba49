"""Cities net while minutes cross between them, over a network that loses, repeats and reorders.

All of a netting's cities post it or none does; whatever crosses meanwhile, limits hold at every
instant, and the difference of every pair is what is in flight. Planted bugs that the machine finds
are tried below.
"""

import os
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from clearing_cities import START, Letter, check_at_rest, found, id_of, unexplained
from netting_cities import NettingCity, Note, moved, to_netting_cities

from timebank.clearing.domain import Agreement, Prepare
from timebank.netting import domain as netting
from timebank.netting import planning
from timebank.netting.domain import Netting, Plan
from timebank.netting.planning import Debt, Move

EXAMPLES = int(os.environ.get("NETTING_EXAMPLES", "40"))
STEPS = 30
TROUBLES = [
    "time passes",
    "time passes",
    "a letter is lost",
    "all letters are lost",
    "a clock jumps",
]


class Federation(RuleBasedStateMachine):
    """Every rule is something that the world does to the cities, or people in them."""

    def __init__(self) -> None:
        super().__init__()
        self.cities: dict[str, NettingCity] = {}
        self.letters: list[Letter] = []
        self.notes: list[Note] = []
        self.now = START
        self.count = 0

    @initialize(
        cities=st.integers(3, 5),
        limits=st.lists(st.integers(60, 120), min_size=20, max_size=20),
        circle=st.integers(20, 60),
        patience=st.sampled_from([60, 600, 3600]),
    )
    def begin(self, cities: int, limits: list[int], circle: int, patience: int) -> None:
        names = [f"city-{number}" for number in range(cities)]
        self.cities = to_netting_cities(found(names, 1, -1000))
        limit = {(a, b): limits[i] for i, (a, b) in enumerate(pairs(names))}
        for a, b in pairs(names):
            self.cities[a].agreements[b] = Agreement(b, "active", limit[a, b], limit[b, a])
        for a, b in zip(names, [*names[1:], names[0]], strict=True):
            self.give(a, b, circle, 3600)
        while self.letters:
            self.deliver_letter(0, again=False)
        self.somebody_proposes(circle, patience)

    def some_city(self, number: int) -> NettingCity:
        return list(self.cities.values())[number % len(self.cities)]

    def time_in(self, city: NettingCity) -> Any:
        return self.now + city.skew

    def give(self, source: str, to: str, minutes: int, patience: int) -> None:
        city = self.cities[source]
        self.count += 1
        deadline = self.time_in(city) + timedelta(seconds=patience)
        payee = self.cities[to].member(0)
        transfer_id = id_of("transfer", self.count)
        prepare = Prepare(transfer_id, source, to, minutes, payee, deadline)
        letter = city.send(prepare, city.member(0), self.time_in(city))
        if letter is not None:
            self.letters.append(letter)

    @rule(
        source=st.integers(0, 4),
        step=st.sampled_from([1, 2, 3, -1, -1, -1]),
        minutes=st.integers(1, 150),
        patience=st.sampled_from([10, 600]),
        at_once=st.booleans(),
    )
    def somebody_gives(
        self, source: int, step: int, minutes: int, patience: int, at_once: bool
    ) -> None:
        one, other = self.some_city(source), self.some_city(source + step)
        if one is not other:
            self.give(one.name, other.name, minutes, patience)
        for _ in range(2 if at_once else 0):
            self.deliver_letter(len(self.letters) - 1, again=False)

    @rule(decider=st.integers(0, 4), patience=st.sampled_from([60, 600, 3600]))
    def somebody_proposes(self, decider: int, patience: int) -> None:
        """By what the cities said last: here, by what they know now, which is soon not true."""
        debts = [
            Debt(peer, one.name, one.pair(peer).clearing.balance_minutes)
            for one in self.cities.values()
            for peer in one.agreements
            if one.pair(peer).clearing.balance_minutes > 0
        ]
        moves = planning.plan_moves(debts)
        open_now = {
            known.plan
            for city in self.cities.values()
            for known in city.nettings.values()
            if known.open
        }
        if not moves or len(open_now) > 1:
            return
        self.count += 1
        cities = Plan(id_of("netting", self.count), "", moves, self.now).cities
        name = cities[decider % len(cities)]
        expires_at = self.time_in(self.cities[name]) + timedelta(seconds=patience)
        plan = Plan(id_of("netting", self.count), name, moves, expires_at)
        self.notes += self.cities[name].propose(plan)

    @rule(
        absent=st.integers(0, 12),
        unwilling=st.integers(0, 40),
        times=st.sampled_from([0, 1, 2, 2]),
        lost=st.integers(0, 20),
    )
    def stewards_answer(self, absent: int, unwilling: int, times: int, lost: int) -> None:
        """Most agree; what they say comes in their order, perhaps twice, perhaps but for one."""
        for number, city in enumerate(self.cities.values()):
            for each, known in list(city.nettings.items()):
                if known.state == "proposed" and number != absent:
                    answer = city.refuse if number == unwilling else city.agree
                    self.notes += answer(each, self.time_in(city))
        del self.notes[lost : lost + 1]
        for last in (False, True)[2 - times :]:
            for number in range(len(self.notes)):
                self.deliver_note(0 if last else number, again=not last)
            self.holds()

    @rule(picks=st.lists(st.integers(0, 10_000), min_size=1, max_size=12), again=st.booleans())
    def deliver_some(self, picks: list[int], again: bool) -> None:
        """Any letters, in any order; they may come again."""
        for pick in picks:
            if pick % 2:
                self.deliver_letter(pick // 2, again)
            else:
                self.deliver_note(pick // 2, again)
            self.holds()

    def deliver_letter(self, pick: int, again: bool) -> None:
        if not self.letters:
            return
        letter = self.letters[pick % len(self.letters)]
        if not again:
            self.letters.remove(letter)
        city = self.cities[letter.to]
        if letter.prepare is not None:
            self.letters.append(city.asked(letter.prepare, self.time_in(city)))
        elif letter.decision is not None:
            city.hear(letter.decision)

    def deliver_note(self, pick: int, again: bool) -> None:
        if not self.notes:
            return
        note = self.notes[pick % len(self.notes)]
        if not again:
            self.notes.remove(note)
        to, kind, sender, what = note
        city = self.cities[to]
        self.notes += city.hears(kind, sender, what, self.time_in(city))

    @rule(trouble=st.sampled_from(TROUBLES), pick=st.integers(0, 10_000), other=st.integers(0, 4))
    def something_happens(self, trouble: str, pick: int, other: int) -> None:
        if trouble == "a letter is lost" and self.notes:
            del self.notes[pick % len(self.notes)]
        elif trouble == "all letters are lost":
            self.letters.clear()
            self.notes.clear()
        elif trouble == "time passes":
            self.now += timedelta(seconds=pick % 90)
            self.speak_again()
        elif trouble == "a clock jumps":
            self.some_city(pick).skew = timedelta(minutes=other * 5 - 10)

    def speak_again(self) -> None:
        for city in self.cities.values():
            self.letters += city.queries(self.time_in(city))
            self.notes += city.speaks_again(START, self.time_in(city))

    @invariant()
    def holds(self) -> None:
        check_books(self.cities)

    def teardown(self) -> None:
        """The network heals, and all deadlines pass: nothing is left open."""
        if not self.cities:
            return
        for _ in range(5):
            self.now += timedelta(hours=1)
            self.speak_again()
            while self.letters or self.notes:
                self.deliver_letter(0, again=False)
                self.deliver_note(0, again=False)
            self.holds()
        check_at_rest(dict(self.cities))
        for city in self.cities.values():
            assert not any(known.open for known in city.nettings.values())
            assert city.set_aside_of_all() == 0
            for each in city.posted:
                for name in city.nettings[each].plan.cities:
                    assert each in self.cities[name].posted


def pairs(names: list[str]) -> list[tuple[str, str]]:
    return [(a, b) for a in names for b in names if a != b]


def check_books(cities: dict[str, NettingCity]) -> None:
    """What holds at every instant, whatever is on its way."""
    for city in cities.values():
        assert sum(account.balance_minutes for account in city.accounts.values()) == 0
        assert city.contradictions == 0
        assert len(city.posted) == len(set(city.posted))
        for each in city.posted:
            states = [
                known.state
                for name in city.nettings[each].plan.cities
                if (known := cities[name].nettings.get(each)) is not None
            ]
            assert set(states) <= {"posted", "agreed"}
        for peer, agreement in city.agreements.items():
            pair = city.pair(peer)
            assert -pair.clearing.balance_minutes <= agreement.limit_in_minutes
            out_minutes = pair.clearing.balance_minutes + pair.in_transit.balance_minutes
            assert out_minutes <= agreement.limit_out_minutes
            assert pair.out_minutes <= agreement.limit_out_minutes
            assert pair.in_minutes <= agreement.limit_in_minutes
    for one in cities.values():
        for other in cities.values():
            if one.name < other.name:
                ours, theirs = moved(one, other.name), moved(other, one.name)
                in_flight = sum(ours.values()) + sum(theirs.values())
                assert all(theirs[each] == -ours[each] for each in ours.keys() & theirs.keys())
                assert unexplained(one, other) == in_flight


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


def test_all_post_a_netting_or_none_does_and_limits_hold_throughout() -> None:
    run(EXAMPLES)


real_decide, real_conclude = netting.decide, netting.conclude


def commits_when_time_is_over(known: Netting, answers: Any, now: Any) -> Any:
    return "commit" if real_decide(known, answers, now) == "abandon" else None


def posts_again(known: Netting, *, committed: bool) -> Any:
    return "post" if committed else real_conclude(known, committed=committed)


def says_it_once(known: Netting, since: Any) -> Any:
    return None


BUGS: dict[str, tuple[Any, str, Any]] = {
    "commits when time is over": (netting, "decide", commits_when_time_is_over),
    "posts whenever it is told": (netting, "conclude", posts_again),
    "says it once": (netting, "speaks_again_at", says_it_once),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, wrong = BUGS[bug]
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(AssertionError):
        run(EXAMPLES)


# ── One circle, told step by step ───────────────────────────────────────────────────────────────


@dataclass
class Circle:
    """Nantes owes Brest, Brest owes Lyon, Lyon owes Nantes: 60 minutes each, limits of 60."""

    cities: dict[str, NettingCity]
    plan: Plan
    count: int = 0

    def send(self, source: str, to: str, minutes: int) -> Letter | None:
        self.count += 1
        one, other = self.cities[source], self.cities[to]
        transfer_id, deadline = id_of("directed", self.count), START + timedelta(hours=1)
        prepare = Prepare(transfer_id, source, to, minutes, other.member(0), deadline)
        return one.send(prepare, one.member(0), START)

    def give(self, source: str, to: str, minutes: int) -> bool:
        """Whether it was settled."""
        letter = self.send(source, to, minutes)
        if letter is None or letter.prepare is None:
            return False
        answer = self.cities[to].asked(letter.prepare, START).decision
        assert answer is not None
        self.cities[source].hear(answer)
        return answer.accepted

    def carry(self, notes: list[Note]) -> None:
        while notes:
            to, kind, sender, what = notes.pop(0)
            notes += self.cities[to].hears(kind, sender, what, START)

    def states(self) -> list[str]:
        each = self.plan.netting_id
        return [
            city.nettings[each].state if each in city.nettings else "unheard"
            for city in self.cities.values()
        ]


def a_circle() -> Circle:
    names = ["brest", "lyon", "nantes"]
    cities = to_netting_cities(found(names, 1, -1000))
    for a, b in pairs(names):
        cities[a].agreements[b] = Agreement(b, "active", 60, 60)
    plan = Plan(UUID(int=1), "brest", (), START + timedelta(hours=1))
    circle = Circle(cities, plan)
    debts = [Debt("nantes", "brest", 60), Debt("brest", "lyon", 60), Debt("lyon", "nantes", 60)]
    for debt in debts:
        assert circle.give(debt.creditor, debt.debtor, 60)
    circle.plan = replace(plan, moves=planning.plan_moves(debts))
    circle.carry(cities["brest"].propose(circle.plan))
    return circle


def test_a_circle_is_cleared_when_the_last_city_agrees_and_not_before() -> None:
    circle = a_circle()
    for name in ("nantes", "brest"):
        circle.carry(circle.cities[name].agree(circle.plan.netting_id, START))
        assert "posted" not in circle.states()
    circle.carry(circle.cities["lyon"].agree(circle.plan.netting_id, START))
    assert circle.states() == ["posted"] * 3
    for a, b in pairs(list(circle.cities)):
        assert circle.cities[a].pair(b).clearing.balance_minutes == 0
    check_books(circle.cities)


def test_what_is_agreed_counts_in_the_limits_before_it_is_posted() -> None:
    """Nantes owes Brest 60. Once Brest has agreed that it will not, Nantes cannot be sent for."""
    circle = a_circle()
    assert circle.give("nantes", "brest", 60)
    assert circle.give("brest", "nantes", 60)
    circle.carry(circle.cities["brest"].agree(circle.plan.netting_id, START))
    assert circle.give("nantes", "brest", 60)
    # Now even: with the netting, Brest will stand at -60 with Nantes, which is its limit.
    assert not circle.give("nantes", "brest", 1)
    for name in ("nantes", "lyon"):
        circle.carry(circle.cities[name].agree(circle.plan.netting_id, START))
    # Nantes has nothing to clear with Brest any more, and does not agree.
    assert circle.cities["nantes"].nettings[circle.plan.netting_id].state == "proposed"
    check_books(circle.cities)


def test_a_city_whose_minutes_on_their_way_rest_on_the_debt_does_not_agree() -> None:
    circle = a_circle()
    assert circle.send("nantes", "brest", 120) is not None
    assert circle.cities["nantes"].agree(circle.plan.netting_id, START) == []
    assert circle.send("nantes", "brest", 1) is None
    check_books(circle.cities)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_two_nettings_of_one_debt_are_not_both_agreed_to(order: list[int]) -> None:
    circle = a_circle()
    again = replace(circle.plan, netting_id=UUID(int=2))
    circle.carry(circle.cities["brest"].propose(again))
    plans = [circle.plan, again]
    agreed = [circle.cities["lyon"].agree(plans[each].netting_id, START) for each in order]
    assert [bool(notes) for notes in agreed] == [True, False]


def test_a_city_that_never_heard_the_decider_learns_the_decision_from_another() -> None:
    circle = a_circle()
    each = circle.plan.netting_id
    circle.carry(circle.cities["brest"].agree(each, START))
    circle.carry(circle.cities["lyon"].agree(each, START))
    (said,) = circle.cities["nantes"].agree(each, START)
    decided = circle.cities["brest"].hears(said[1], said[2], said[3], START)
    # Lyon hears it, Nantes does not, and Brest is never heard of again.
    circle.carry([note for note in decided if note[0] == "lyon"])
    assert circle.states() == ["posted", "posted", "agreed"]
    now = START
    for _ in range(netting.ASKS_BEFORE_OTHERS + 1):
        now += timedelta(hours=1)
        notes = circle.cities["nantes"].speaks_again(START, now)
        circle.carry([note for note in notes if note[0] != "brest"])
    assert circle.states() == ["posted"] * 3


def test_nobody_decides_with_an_agreement_missing() -> None:
    plan = a_circle().plan
    ours = Netting(plan, "brest", "agreed")
    late = plan.expires_at
    assert netting.decide(ours, {"lyon": True}, START) is None
    assert netting.decide(ours, {"lyon": True}, late) == "abandon"
    assert netting.decide(ours, {"lyon": True, "nantes": True}, late) == "commit"
    assert netting.decide(ours, {"lyon": False}, START) == "abandon"
    undecided = replace(ours, state="proposed")
    assert netting.decide(undecided, {"lyon": True, "nantes": True}, START) is None
    for state in ("posted", "abandoned", "expired"):
        done = replace(ours, state=state)
        assert netting.decide(done, {"lyon": True, "nantes": True}, late) is None


# ── Plans ───────────────────────────────────────────────────────────────────────────────────────

NAMES = [f"city-{number}" for number in range(6)]


@given(
    owed=st.dictionaries(
        st.sampled_from([(a, b) for a, b in pairs(NAMES) if a < b]), st.integers(-200, 200)
    ),
    limits=st.dictionaries(
        st.sampled_from([frozenset(pair) for pair in pairs(NAMES)]), st.integers(0, 50), max_size=3
    ),
    seed=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_a_plan_is_within_the_debts_balanced_the_largest_and_always_the_same(
    owed: dict[tuple[str, str], int], limits: dict[frozenset[str], int], seed: Any
) -> None:
    debts = [
        Debt(a, b, minutes) if minutes > 0 else Debt(b, a, -minutes)
        for (a, b), minutes in owed.items()
        if minutes
    ]
    moves = planning.plan_moves(debts, limits)
    seed.shuffle(debts)
    assert planning.plan_moves(debts, limits) == moves
    by_pair = {(debt.debtor, debt.creditor): debt.minutes for debt in debts}
    for move in moves:
        assert move.owed_minutes == by_pair[move.debtor, move.creditor]
        most = limits.get(frozenset((move.debtor, move.creditor)), move.owed_minutes)
        assert 1 <= move.minutes <= min(most, move.owed_minutes)
    cycles = planning.cycles_of(moves)
    assert sum(len(cycle.cities) * cycle.minutes for cycle in cycles) == sum(
        move.minutes for move in moves
    )
    if moves:
        plan = Plan(UUID(int=1), moves[0].debtor, moves, START)
        netting.check_plan(plan)
        assert all(sum(plan.changes_of(city).values()) == 0 for city in plan.cities)
    # No more can be cleared: in what is left, no circle has room on every side, going either with
    # a debt or back along a move that is made.
    made = {(move.debtor, move.creditor): move.minutes for move in moves}
    gain: dict[tuple[str, str], int] = {}
    for pair, minutes in by_pair.items():
        if made.get(pair, 0) < min(minutes, limits.get(frozenset(pair), minutes)):
            gain[pair] = 1
        if made.get(pair, 0):
            gain[pair[1], pair[0]] = max(gain.get((pair[1], pair[0]), -1), -1)
    assert not has_gaining_circle(gain)


def has_gaining_circle(gain: dict[tuple[str, str], int]) -> bool:
    """Bellman and Ford: whether some circle of arcs has a gain above zero in all."""
    best = dict.fromkeys(NAMES, 0)
    for _ in range(len(NAMES) + 1):
        before = dict(best)
        for (a, b), minutes in gain.items():
            best[b] = max(best[b], before[a] + minutes)
    return best != before


def test_a_plan_is_told_in_words() -> None:
    moves = a_circle().plan.moves
    assert planning.explain(moves) == {
        "fr": "brest doit à lyon, lyon doit à nantes, nantes doit à brest : chacune doit 60 minutes"
        " de moins. brest devait 60 minutes à lyon, en devra 0. lyon devait 60 minutes à nantes,"
        " en devra 0. nantes devait 60 minutes à brest, en devra 0.",
        "en": "brest owes lyon, lyon owes nantes, nantes owes brest: each owes 60 minutes less."
        " brest owed lyon 60 minutes, and will owe 0. lyon owed nantes 60 minutes, and will owe 0."
        " nantes owed brest 60 minutes, and will owe 0.",
    }


@pytest.mark.parametrize(
    ("moves", "what"),
    [
        ([], "1 to 200"),
        ([Move("a", "b", 5, 4), Move("b", "c", 5, 9), Move("c", "a", 5, 9)], "what is owed"),
        ([Move("a", "b", 5, 9), Move("b", "c", 4, 9), Move("c", "a", 5, 9)], "sum to zero"),
        ([Move("a", "b", 5, 9), Move("b", "a", 5, 9)], "each pair of cities once"),
        ([Move("x", "b", 5, 9), Move("b", "c", 5, 9), Move("c", "x", 5, 9)], "who decides"),
    ],
    ids=["nothing", "too much", "not balanced", "a pair twice", "somebody outside decides"],
)
def test_a_plan_that_is_none_is_refused(moves: list[Move], what: str) -> None:
    with pytest.raises(netting.WrongPlan, match=what):
        netting.check_plan(Plan(UUID(int=1), "a", tuple(moves), START))
