"""The protocol of netting. Pure: no await, no clock, no ids made here.

One of the cities proposes a plan and decides about it; every city in it agrees or refuses.

    decider                                    every other city
    (its stewards agree)  ── proposed ──▶      its stewards look at it
                                   agreed ◀──  what it moves is set aside in the limits
    all agreed: decided, posted
                           ── decided ──▶      posted

An agreement binds whoever gave it until the decision is heard, and is said again until then, as a
message may be lost. The plan is carried out if and only if every city signed it. The decider signs
last: its signature stands under the decision itself, beside the agreements of all others. So before
it has decided nobody can hold a complete set, and after it has abandoned the plan nobody ever will;
whoever holds the set may pass it on. Deadlines apply to agreeing alone.

Every book gets one transfer, over its clearing accounts alone: what is due from one city becomes
less, what is owed to another becomes less by the same. Between two cities the sum is again zero as
soon as both have posted; until then the difference is that move, and is known by its netting.

What is set aside counts in the limits of both directions like minutes that moved already. So a move
always fits when it is posted, whatever crossed between the two cities meanwhile.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Literal
from uuid import UUID

import rfc8785

from timebank.domain import LEGS_MAX, MINUTES_MAX, Leg, Rejected
from timebank.netting.planning import MOVES_MAX, Move

AGREE_MIN = timedelta(minutes=1)
AGREE_MAX = timedelta(days=30)
AGREE_DEFAULT = timedelta(days=7)
AGAIN_FIRST_AFTER = timedelta(seconds=5)
AGAIN_EVERY_MAX = timedelta(minutes=10)
# A decider that does not answer so often may be away for long: the others may know.
ASKS_BEFORE_OTHERS = 3
# How many proposals of one city another keeps open.
OPEN_MAX = 10

State = Literal["proposed", "agreed", "posted", "refused", "abandoned", "expired"]
Conclusion = Literal["post", "release", "close", "nothing", "contradiction"]


class WrongPlan(ValueError):
    """What is wrong with a plan, in words."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is proposed, the same for every city in it. `decider` is one of them."""

    netting_id: UUID
    decider: str
    moves: tuple[Move, ...]
    expires_at: datetime

    @property
    def cities(self) -> tuple[str, ...]:
        return tuple(sorted({city for move in self.moves for city in (move.debtor, move.creditor)}))

    @property
    def minutes(self) -> int:
        """How many minutes of debt are cleared in all."""
        return sum(move.minutes for move in self.moves)

    def changes_of(self, city_id: str) -> dict[str, int]:
        """By peer, how the city's clearing account with it moves; they sum to zero."""
        changes: Counter[str] = Counter()
        for move in self.moves:
            if move.creditor == city_id:
                changes[move.debtor] -= move.minutes
            elif move.debtor == city_id:
                changes[move.creditor] += move.minutes
        return dict(sorted(changes.items()))

    def digest(self) -> str:
        """What an agreement names, so that it is to this plan and to no other."""
        told: dict[str, Any] = {
            "netting_id": str(self.netting_id),
            "decider": self.decider,
            "moves": [
                [move.debtor, move.creditor, move.minutes, move.owed_minutes] for move in self.moves
            ],
            "expires_at": int(self.expires_at.timestamp() * 1_000_000),
        }
        return sha256(rfc8785.dumps(told)).hexdigest()


@dataclass(frozen=True, slots=True)
class Netting:
    """A plan as one of its cities keeps it. `asks`: how often it was spoken about in vain."""

    plan: Plan
    city_id: str
    state: State
    asks: int = 0
    asked_at: datetime | None = None

    @property
    def decides(self) -> bool:
        return self.plan.decider == self.city_id

    @property
    def open(self) -> bool:
        return self.state in ("proposed", "agreed")


@dataclass(frozen=True, slots=True)
class Room:
    """One city's side of a pair: its clearing account, and what nettings have set aside of it.

    `down_minutes` is by how much they will lower the position, `up_minutes` by how much raise it;
    `out_left_minutes` what is left of the limit of what the city sends.
    """

    in_force: bool
    position_minutes: int
    up_minutes: int
    down_minutes: int
    out_left_minutes: int

    def fits(self, change: int) -> bool:
        """Whether a change leads towards zero and not beyond, after what is set aside already."""
        if change < 0:
            return self.position_minutes - self.down_minutes + change >= 0
        # What is on its way to the peer may rest on what is owed to it, and would not fit any more.
        owed = -self.position_minutes - self.up_minutes
        return change <= min(owed, self.out_left_minutes)


def check_plan(plan: Plan) -> None:
    """What anybody can see of a plan. Raises WrongPlan."""
    if not 1 <= len(plan.moves) <= MOVES_MAX:
        raise WrongPlan(f"a plan has 1 to {MOVES_MAX} moves")
    pairs = {frozenset((move.debtor, move.creditor)) for move in plan.moves}
    if len(pairs) != len(plan.moves) or any(len(pair) != 2 for pair in pairs):
        raise WrongPlan("a plan moves each pair of cities once")
    if any(not 1 <= move.minutes <= move.owed_minutes <= MINUTES_MAX for move in plan.moves):
        raise WrongPlan("a move is of 1 minute up to what is owed")
    if plan.decider not in plan.cities:
        raise WrongPlan("who decides takes part")
    for city_id in plan.cities:
        changes = plan.changes_of(city_id)
        if sum(changes.values()) != 0:
            raise WrongPlan(f"the book of {city_id} would not sum to zero")
        if len(changes) > LEGS_MAX:
            raise WrongPlan(f"{city_id} has too many moves for one transfer")


def may_wait(plan: Plan, now: datetime) -> bool:
    """Whether another city's plan is one that stewards may still agree to, and will not be open for
    ever. Clocks differ by less than AGREE_MIN."""
    return now < plan.expires_at <= now + AGREE_MAX + AGREE_MIN


def agree(netting: Netting, rooms: Mapping[str, Room], now: datetime) -> Netting | Rejected:
    """The city agrees, bound until it hears the decision. `rooms`: its sides, locked."""
    if netting.state == "agreed":
        return netting
    if netting.state != "proposed":
        return Rejected("netting_state", f"This netting is {netting.state}.")
    if now >= netting.plan.expires_at:
        return Rejected("netting_expired", "It was to be agreed earlier.")
    for peer, change in netting.plan.changes_of(netting.city_id).items():
        room = rooms.get(peer)
        if room is None or not room.in_force:
            return Rejected("no_agreement", f"There is no agreement in force with {peer}.")
        if not room.fits(change):
            return Rejected(
                "netting_does_not_fit", f"The position with {peer} is smaller by now than the move."
            )
    return replace(netting, state="agreed", asks=0, asked_at=now)


def refuse(netting: Netting) -> Netting | Rejected:
    """The city does not want it; possible as long as it has not agreed."""
    if netting.state == "refused":
        return netting
    if netting.state != "proposed":
        return Rejected("netting_state", f"This netting is {netting.state}.")
    return replace(netting, state="refused")


def decide(
    netting: Netting, answers: Mapping[str, bool], now: datetime
) -> Literal["commit", "abandon"] | None:
    """What the decider decides, once; None: nothing yet. `answers`: of the others, True: agreed.

    The caller holds the lock of the netting: two who look at once would not both decide.
    """
    if not netting.decides or netting.state not in ("proposed", "agreed", "refused"):
        return None
    others = set(netting.plan.cities) - {netting.city_id}
    if netting.state == "agreed" and all(answers.get(city) is True for city in others):
        return "commit"
    refused = netting.state == "refused" or any(answers.get(city) is False for city in others)
    if refused or now >= netting.plan.expires_at:
        return "abandon"
    return None


def conclude(netting: Netting, *, committed: bool) -> Conclusion:
    """What a decision means to a city. A contradiction is what no honest decider brings about."""
    if netting.state == "agreed":
        return "post" if committed else "release"
    if committed:
        return "nothing" if netting.state == "posted" else "contradiction"
    if netting.state == "posted":
        return "contradiction"
    return "close" if netting.state in ("proposed", "refused") else "nothing"


def concluded(netting: Netting, conclusion: Conclusion) -> Netting:
    state: State = "posted" if conclusion == "post" else "abandoned"
    return replace(netting, state=state) if conclusion in ("post", "release", "close") else netting


def lapse(netting: Netting, now: datetime) -> Netting:
    """One who has not agreed in time never will: nothing is left to wait for."""
    if netting.state == "proposed" and not netting.decides and now >= netting.plan.expires_at:
        return replace(netting, state="expired")
    return netting


def legs_of(netting: Netting, accounts: Mapping[str, UUID]) -> tuple[Leg, ...]:
    """What the city posts; `accounts`: its clearing accounts by peer."""
    changes = netting.plan.changes_of(netting.city_id)
    return tuple(Leg(accounts[peer], minutes) for peer, minutes in changes.items())


def speaks_again_at(netting: Netting, since: datetime) -> datetime | None:
    """When to say again what was not answered: the decider its proposal, the others that they
    agree. After 5 s, then after twice as long each time, at most 10 minutes. None: never."""
    waits = netting.open if netting.decides else netting.state == "agreed"
    if not waits:
        return None
    pause = min(AGAIN_EVERY_MAX, AGAIN_FIRST_AFTER * (1 << min(netting.asks, 10)))
    return (netting.asked_at or since) + pause


def due_at(netting: Netting, since: datetime) -> datetime | None:
    """When somebody is to look at it: to say something again, or because agreeing is over."""
    again = speaks_again_at(netting, since)
    if netting.state == "proposed" or (netting.decides and netting.open):
        return min(again or netting.plan.expires_at, netting.plan.expires_at)
    return again


def spoken_again(netting: Netting, now: datetime) -> Netting:
    return replace(netting, asks=netting.asks + 1, asked_at=now)
