"""The laws of exchanges after every step of any life of several of them over one listing.

What is taken of a deposit was held for it, and never more than was claimed; a price is given once,
by who received; what has ended holds nothing and does not move; what is promised of a surplus is
what its agreements say, and never more than there is; who may take a step is one side, or a
mediator who is none; a refused step is a value, and leaves all as it was.

200 lives of up to 30 steps. Planted and caught, one by one: a claim beyond the deposit; a ruling
beyond the claim; an end that releases no deposit; a cancelled agreement that gives no surplus
back; an agreement that looks at no quantity; `done` by who gives; a mediator who is a side; a
step from an end; a hand-over that pays twice.
"""

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from timebank.board.exchanges import domain
from timebank.board.exchanges.domain import Exchange, Step, Terms
from timebank.board.listings.domain import Listing
from timebank.domain import Actor, Rejected

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
TODAY = date(2026, 11, 22)
OWNER = UUID(int=1)
PEOPLE = {
    "owner": Actor(str(OWNER), "nantes"),
    "bruno": Actor(str(UUID(int=2)), "nantes"),
    "dora": Actor(str(UUID(int=3)), "nantes", mediator=True),
    "mediator": Actor("mediator", "nantes", mediator=True),
    "elsewhere": Actor("elsewhere", "bourges", mediator=True, steward=True),
}
ASKING = ("bruno", "dora")
ENDS = {"done", "returned", "settled", "declined", "cancelled", "expired"}
WHO = st.sampled_from(sorted(PEOPLE))
PLACES = st.integers(0, 10**6)
MINUTES = st.integers(0, 200)


class Board(RuleBasedStateMachine):
    """Carries out effects on a ledger of two numbers for each exchange: what is held of its price
    and of its deposit. None: nothing was ever held."""

    @initialize(
        kind=st.sampled_from(["offer", "need"]),
        what=st.sampled_from(["service", "lend", "surplus"]),
        price=st.sampled_from([0, 30]),
        deposit=st.sampled_from([0, 100]),
    )
    def open_listing(self, kind: Any, what: Any, price: int, deposit: int) -> None:
        self.now = NOW
        self.next_id = 100
        self.listing = Listing(
            id=UUID(int=10), city_id="nantes", owner_kind="member", owner_id=OWNER, kind=kind,
            what=what, title="x", text=None, category="tools", skills=(), place_id=None,
            latitude=None, longitude=None, schedule_text=None, schedule_slots=(),
            price_minutes=price, deposit_minutes=deposit if what == "lend" else 0,
            quantity=3 if what == "surplus" else None, available_until=None, visibility="city",
            listed_by="x", created_at=NOW,
        )  # fmt: skip
        self.exchanges: dict[UUID, Exchange] = {}
        self.held: dict[tuple[UUID, str], int] = {}
        self.paid: Counter[UUID] = Counter()
        self.settled: dict[UUID, int] = {}
        self.said_by: dict[tuple[UUID, str], str] = {}

    def new_id(self) -> UUID:
        self.next_id += 1
        return UUID(int=self.next_id)

    @rule(
        who=st.sampled_from(ASKING),
        minutes=st.none() | st.integers(0, 60),
        quantity=st.integers(1, 4),
    )
    def ask(self, who: str, minutes: int | None, quantity: int) -> None:
        lend, surplus = self.listing.what == "lend", self.listing.what == "surplus"
        asked = domain.request(
            self.listing,
            PEOPLE[who],
            exchange_id=self.new_id(),
            requester_id=UUID(PEOPLE[who].id),
            requester_city_id="nantes",
            terms=Terms(
                minutes=minutes,
                quantity=quantity if surplus else None,
                from_on=TODAY if lend else None,
                until_on=TODAY + timedelta(days=1) if lend else None,
            ),
            now=self.now,
            today=TODAY,
        )
        if isinstance(asked, Exchange):
            self.exchanges[asked.id] = asked

    @rule(place=PLACES, who=WHO)
    def agree(self, place: int, who: str) -> None:
        self.step(
            place, who, "agree", lambda one, actor: domain.agree(one, self.listing, actor, TODAY)
        )

    @rule(place=PLACES, who=WHO)
    def decline(self, place: int, who: str) -> None:
        self.step(place, who, "decline", lambda one, actor: domain.decline(one, actor, self.now))

    @rule(place=PLACES, who=WHO)
    def cancel(self, place: int, who: str) -> None:
        self.step(place, who, "cancel", lambda one, actor: domain.cancel(one, actor, self.now))

    @rule(place=PLACES, who=WHO)
    def finish(self, place: int, who: str) -> None:
        self.step(place, who, "finish", lambda one, actor: domain.finish(one, actor, self.now))

    @rule(place=PLACES, who=WHO)
    def hand_over(self, place: int, who: str) -> None:
        self.step(place, who, "hand_over", domain.hand_over)

    @rule(place=PLACES, who=WHO)
    def take_back(self, place: int, who: str) -> None:
        self.step(
            place, who, "take_back", lambda one, actor: domain.take_back(one, actor, self.now)
        )

    @rule(place=PLACES, who=WHO, minutes=MINUTES)
    def claim(self, place: int, who: str, minutes: int) -> None:
        self.step(
            place, who, "claim",
            lambda one, actor: domain.claim(one, actor, minutes=minutes + 1, note=None),
        )  # fmt: skip

    @rule(place=PLACES, who=WHO)
    def accept(self, place: int, who: str) -> None:
        self.step(place, who, "accept", lambda one, actor: domain.accept(one, actor, self.now))

    @rule(place=PLACES, who=WHO, minutes=MINUTES)
    def rule_on(self, place: int, who: str, minutes: int) -> None:
        self.step(
            place, who, "rule",
            lambda one, actor: domain.rule(one, actor, minutes=minutes, note=None, now=self.now),
        )  # fmt: skip

    @rule(place=PLACES, days=st.integers(0, 70))
    def wait(self, place: int, days: int) -> None:
        self.now += timedelta(days=days)
        if (one := self.one(place)) is not None and (step := domain.expire(one, self.now)):
            self.carry_out(step)

    @rule(place=PLACES)
    def leave(self, place: int) -> None:
        one = self.one(place)
        if one is not None and one.ended_at is None:
            self.carry_out(domain.leave(one, self.now))

    def one(self, place: int) -> Exchange | None:
        found = list(self.exchanges.values())
        return found[place % len(found)] if found else None

    def step(self, place: int, who: str, name: str, decide: Any) -> None:
        one = self.one(place)
        if one is None:
            return
        step = decide(one, PEOPLE[who])
        if isinstance(step, Rejected):
            assert step.code in {
                "forbidden", "not_found", "wrong_step", "nothing_left", "exceeds_deposit",
            }  # fmt: skip
            return
        assert one.ended_at is None, "a step from an end"
        self.said_by[one.id, name] = who
        self.check_who(one, who, name)
        self.carry_out(step)

    def check_who(self, one: Exchange, who: str, name: str) -> None:
        """Who loses by a step says it; nobody of another city says anything."""
        asker = next(name for name in ASKING if PEOPLE[name].id == str(one.requester_id))
        giver, receiver = ("owner", asker) if one.kind == "offer" else (asker, "owner")
        mediators = {"dora", "mediator"} - {giver, receiver}
        may = {
            "agree": {"owner"}, "decline": {"owner"}, "finish": {receiver},
            "hand_over": {receiver}, "take_back": {giver}, "claim": {giver}, "accept": {receiver},
            "rule": mediators,
            "cancel": {asker} if one.status == "requested" else {giver, receiver},
        }  # fmt: skip
        assert who in may[name]

    def carry_out(self, step: Step) -> None:
        one = step.exchange
        for effect in step.effects:
            if effect in {"hold_price", "hold_deposit"}:
                part = effect.removeprefix("hold_")
                assert (one.id, part) not in self.held, "held twice"
                self.held[one.id, part] = one.minutes if part == "price" else one.deposit_minutes
                one = replace(one, **{f"{part}_hold_id": self.new_id()})
            elif effect in {"release_price", "release_deposit"}:
                self.held[one.id, effect.removeprefix("release_")] = 0
            elif effect == "pay":
                assert self.held[one.id, "price"] == 0, "the price is given from what is free"
                self.paid[one.id] += 1
            else:
                assert one.settled_minutes is not None
                assert one.settled_minutes <= self.held[one.id, "deposit"]
                self.settled[one.id] = one.settled_minutes
                self.held[one.id, "deposit"] = 0
        before = self.exchanges[one.id]
        assert one.version == before.version + 1
        self.exchanges[one.id] = one
        self.listing = replace(self.listing, taken=self.listing.taken + step.taken)

    @invariant()
    def what_is_given_was_held_and_claimed(self) -> None:
        for exchange_id, minutes in self.settled.items():
            one = self.exchanges[exchange_id]
            assert one.status == "settled"
            assert 0 < minutes <= (one.claimed_minutes or 0) <= one.deposit_minutes

    @invariant()
    def a_price_is_given_once_and_only_for_what_was_received(self) -> None:
        for one in self.exchanges.values():
            assert self.paid[one.id] <= 1
            received = one.status in {"done", "handed_over", "claimed", "returned", "settled"}
            if self.paid[one.id]:
                assert received
                assert one.minutes > 0
            elif one.minutes and one.status in {"done", "handed_over", "claimed", "settled"}:
                raise AssertionError("received, and never paid")

    @invariant()
    def what_has_ended_holds_nothing(self) -> None:
        for one in self.exchanges.values():
            left = [self.held.get((one.id, part), 0) for part in ("price", "deposit")]
            if one.status in ENDS:
                assert one.ended_at is not None
                assert left == [0, 0]
            elif one.status == "agreed":
                assert left == [one.minutes, one.deposit_minutes]
            elif one.status in {"handed_over", "claimed"}:
                assert left == [0, one.deposit_minutes]

    @invariant()
    def no_more_is_promised_than_there_is(self) -> None:
        promised = sum(
            one.quantity or 0 for one in self.exchanges.values() if one.status in domain.TAKING
        )
        assert self.listing.taken == promised
        assert promised <= (self.listing.quantity or 0)


TestBoard = Board.TestCase
TestBoard.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
