"""The clearing protocol. Pure: no await, no clock, no ids made here.

A city is the source of a transfer, another its destination. The destination decides, once; the
source sets the minutes aside before it asks, and never guesses an answer that it has not heard.

    source                                        destination
    payer → in_transit:destination ── prepare ──▶
                                     accepted ◀── clearing:source → payee
    in_transit → clearing:destination
                                  or rejected ◀── nothing
    in_transit → payer

A message may be lost, come twice, late, or before an earlier one: each side keeps what it decided
and says it again. `query` is the same prepare sent again, so that a destination that never heard of
the transfer can decide it then; after the deadline that is always a refusal. So every transfer ends
as soon as messages get through, and at rest A's clearing:B and B's clearing:A sum to zero.

A city may take a levy for its commons: the source on top of what is sent, the destination out of
what arrives. What is returned comes back with its levy, and a reversal gives back both: it is a
transfer the other way whose levies are those of the original, less than zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from timebank.domain import MINUTES_MAX, Account, Leg, Rejected

# How long a destination may take. Longer than any network is away for, so that a short failure
# costs nobody an exchange; short enough that nobody's minutes are set aside for weeks.
DEADLINE_MIN = timedelta(seconds=10)
DEADLINE_MAX = timedelta(days=7)
DEADLINE_DEFAULT = timedelta(hours=24)
# The destination's clock may be behind: what it accepts just before its deadline is still answered.
QUERY_FIRST_AFTER = timedelta(seconds=5)
QUERY_EVERY_MAX = timedelta(minutes=10)
PERMILLE_MAX = 500

AgreementState = Literal["proposed", "active", "suspended", "ended"]
OutgoingState = Literal["sent", "settled", "returned"]
RefusalReason = Literal[
    "no_agreement",
    "payee_not_found",
    "payee_closed",
    "limit_reached",
    "ceiling_exceeded",
    "deadline_passed",
    "not_reversible",
    "already_reversed",
]
Conclusion = Literal["settle", "return", "nothing", "contradiction"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two cities agreed, as one of them keeps it. Limits in minutes, both of them positive.

    `limit_out_minutes`: how far the peer may come to owe us nothing but what we sent: what is on
    its way to the peer or settled there, less what came back. `limit_in_minutes`: the same seen
    from the other side, and the peer's `limit_out_minutes`. `soft_percent` of a limit is where
    people are warned. Levies, in thousandths, are each city's own.
    """

    peer_city_id: str
    state: AgreementState
    limit_out_minutes: int
    limit_in_minutes: int
    soft_percent: int = 80
    levy_out_permille: int = 0
    levy_in_permille: int = 0


@dataclass(frozen=True, slots=True)
class Prepare:
    """What the source asks of the destination. `transfer_id` is the same from end to end.

    `payee` is the member in the destination; `reverses` the transfer, that went the other way,
    which this one takes back.
    """

    transfer_id: UUID
    from_city: str
    to_city: str
    minutes: int
    payee: UUID
    deadline: datetime
    reverses: UUID | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the destination decided, and says whenever it is asked again."""

    transfer_id: UUID
    reason: RefusalReason | None
    decided_at: datetime

    @property
    def accepted(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A transfer as its source keeps it. `levy_minutes` went to the commons of the source; of a
    reversal they came from there, and are below zero."""

    prepare: Prepare
    payer_account: UUID
    levy_minutes: int
    state: OutgoingState
    sent_at: datetime
    queries: int = 0
    queried_at: datetime | None = None

    def is_overdue(self, now: datetime) -> bool:
        """Whether the answer should have come: shown to people, and never guessed."""
        return self.state == "sent" and now >= self.prepare.deadline


@dataclass(frozen=True, slots=True)
class Pair:
    """The accounts of one city that clearing with one peer moves."""

    in_transit: Account
    clearing: Account
    commons: Account
    # What nettings that this city has agreed to will move: it counts as if it had.
    netting_up_minutes: int = 0
    netting_down_minutes: int = 0

    @property
    def out_minutes(self) -> int:
        """What counts against `limit_out_minutes`."""
        return (
            self.clearing.balance_minutes
            + self.in_transit.balance_minutes
            + self.netting_up_minutes
        )

    @property
    def in_minutes(self) -> int:
        """What counts against `limit_in_minutes`."""
        return self.netting_down_minutes - self.clearing.balance_minutes


# ── Source ──────────────────────────────────────────────────────────────────────────────────────


def depart(
    prepare: Prepare,
    payer: Account,
    pair: Pair,
    agreement: Agreement | None,
    now: datetime,
    *,
    levy_taken: int = 0,
) -> tuple[Outgoing, tuple[Leg, ...]] | Rejected:
    """Set the minutes aside, and the levy: what is to be posted, and what is to be kept.

    `levy_taken`: of a reversal, what our commons took when the original arrived. The payer's floor
    is the ledger's to check.
    """
    takes_back = prepare.reverses is not None
    states = ("active", "suspended") if takes_back else ("active",)
    if agreement is None or agreement.state not in states:
        return Rejected("no_agreement", "The two cities have no agreement in force.")
    if not 1 <= prepare.minutes <= MINUTES_MAX:
        raise ValueError("minutes are counted from 1")
    if not DEADLINE_MIN <= prepare.deadline - now <= DEADLINE_MAX:
        return Rejected(
            "invalid_deadline",
            "A deadline is 10 seconds to 7 days ahead.",
            field="body.deadline",
        )
    # A way back is owed, whatever the limit says by now: it leads towards zero.
    if not takes_back and pair.out_minutes + prepare.minutes > agreement.limit_out_minutes:
        left = max(0, agreement.limit_out_minutes - pair.out_minutes)
        return Rejected(
            "limit_reached",
            f"The two cities agreed on a limit; {left} minutes are left of it.",
            field="body.minutes",
        )
    levy = prepare.minutes * agreement.levy_out_permille // 1000
    if takes_back:
        levy = -levy_taken
    outgoing = Outgoing(prepare, payer.id, levy, "sent", now)
    return outgoing, departure_legs(outgoing, pair)


def departure_legs(outgoing: Outgoing, pair: Pair) -> tuple[Leg, ...]:
    minutes, levy = outgoing.prepare.minutes, outgoing.levy_minutes
    legs = (Leg(outgoing.payer_account, -minutes - levy), Leg(pair.in_transit.id, minutes))
    return (*legs, Leg(pair.commons.id, levy)) if levy else legs


def conclude(outgoing: Outgoing, answer: Decision) -> Conclusion:
    """What an answer means to the source. Heard again, nothing; the opposite of what was heard
    before is a contradiction, which no honest destination ever says."""
    meaning: Conclusion = "settle" if answer.accepted else "return"
    if outgoing.state == "sent":
        return meaning
    heard: Conclusion = "settle" if outgoing.state == "settled" else "return"
    return "nothing" if meaning == heard else "contradiction"


def settlement_legs(outgoing: Outgoing, pair: Pair) -> tuple[Leg, ...]:
    minutes = outgoing.prepare.minutes
    return (Leg(pair.in_transit.id, -minutes), Leg(pair.clearing.id, minutes))


def return_legs(outgoing: Outgoing, pair: Pair) -> tuple[Leg, ...]:
    minutes, levy = outgoing.prepare.minutes, outgoing.levy_minutes
    legs = (Leg(pair.in_transit.id, -minutes), Leg(outgoing.payer_account, minutes + levy))
    return (*legs, Leg(pair.commons.id, -levy)) if levy else legs


def room_for(account: Account, minutes: int) -> Account:
    """The account with limits as wide as a return needs: what was set aside comes home, whatever
    else came in meanwhile, or a steward decided about the limits."""
    balance = account.balance_minutes + minutes
    floor, ceiling = account.floor_minutes, account.ceiling_minutes
    if minutes < 0 and floor is not None:
        floor = min(floor, balance - account.held_minutes)
    if minutes > 0 and ceiling is not None:
        ceiling = max(ceiling, balance)
    return replace(account, floor_minutes=floor, ceiling_minutes=ceiling)


def next_query_at(outgoing: Outgoing) -> datetime:
    """When to ask again: 5 s after sending, then after twice as long each time, at most 10 min."""
    since = outgoing.queried_at or outgoing.sent_at
    doublings = min(outgoing.queries, 10)
    return since + min(QUERY_EVERY_MAX, QUERY_FIRST_AFTER * (1 << doublings))


def queried(outgoing: Outgoing, now: datetime) -> Outgoing:
    return replace(outgoing, queries=outgoing.queries + 1, queried_at=now)


# ── Destination ─────────────────────────────────────────────────────────────────────────────────


def decide(
    prepare: Prepare,
    payee: Account | None,
    pair: Pair | None,
    agreement: Agreement | None,
    now: datetime,
    *,
    reversed_already: bool = False,
    original: Outgoing | None = None,
) -> tuple[Decision, tuple[Leg, ...]]:
    """Accept or refuse a transfer that was not decided before; what is to be posted if accepted.

    The one place where its outcome is made. The caller has looked for an earlier decision under the
    same lock; `original` is the transfer of ours that this one takes back, as its source keeps it.
    """
    reason = refuse(
        prepare, payee, pair, agreement, now, reversed_already=reversed_already, original=original
    )
    decision = Decision(prepare.transfer_id, reason, now)
    if reason is not None or payee is None or pair is None or agreement is None:
        return decision, ()
    return decision, arrival_legs(prepare, payee, pair, levy_in(prepare, agreement, original))


def refuse(
    prepare: Prepare,
    payee: Account | None,
    pair: Pair | None,
    agreement: Agreement | None,
    now: datetime,
    *,
    reversed_already: bool,
    original: Outgoing | None,
) -> RefusalReason | None:
    """Why the destination does not accept; the first that applies."""
    if now >= prepare.deadline:
        return "deadline_passed"
    takes_back = prepare.reverses is not None
    # One who suspended the agreement still takes back what had been sent.
    states = ("active", "suspended") if takes_back else ("active",)
    if pair is None or agreement is None or agreement.state not in states:
        return "no_agreement"
    if takes_back:
        if reversed_already:
            return "already_reversed"
        if (
            original is None
            or original.state != "settled"
            or original.prepare.to_city != prepare.from_city
            or original.prepare.minutes != prepare.minutes
        ):
            return "not_reversible"
    if payee is None:
        return "payee_not_found"
    if not payee.open:
        return "payee_closed"
    if not takes_back and pair.in_minutes + prepare.minutes > agreement.limit_in_minutes:
        return "limit_reached"
    levy = levy_in(prepare, agreement, original)
    if exceeds_ceiling(payee, prepare.minutes - levy) or exceeds_ceiling(pair.commons, levy):
        return "ceiling_exceeded"
    left = pair.commons.left_minutes
    if left is not None and left + levy < 0:
        return "limit_reached"  # of a reversal: our levy of then is spent, and there is a floor
    return None


def exceeds_ceiling(account: Account, minutes: int) -> bool:
    """Whether an account may not receive so much."""
    balance = account.balance_minutes + minutes
    ceiling = MINUTES_MAX if account.ceiling_minutes is None else account.ceiling_minutes
    return minutes > 0 and balance > ceiling


def levy_in(prepare: Prepare, agreement: Agreement, original: Outgoing | None) -> int:
    """What the destination's commons takes; of a reversal, what it gives back of the original."""
    if prepare.reverses is not None:
        return -original.levy_minutes if original else 0
    return prepare.minutes * agreement.levy_in_permille // 1000


def arrival_legs(prepare: Prepare, payee: Account, pair: Pair, levy: int) -> tuple[Leg, ...]:
    legs = (Leg(pair.clearing.id, -prepare.minutes), Leg(payee.id, prepare.minutes - levy))
    return (*legs, Leg(pair.commons.id, levy)) if levy else legs


# ── Limits and reconciliation ───────────────────────────────────────────────────────────────────


def is_soft(minutes: int, limit_minutes: int, soft_percent: int) -> bool:
    """Whether so much of a limit is used that people are warned; nothing used is no reason."""
    return minutes > 0 and minutes * 100 >= limit_minutes * soft_percent


def difference(ours: int, theirs: int) -> int:
    """What A's clearing:B and B's clearing:A sum to: 0 at rest.

    Between an acceptance and its acknowledgement B has posted and A has not: the sum is then below
    zero by exactly what A still shows as sent and B as accepted.
    """
    return ours + theirs


def unexplained(
    a_clearing: int,
    b_clearing: int,
    a_sent: Mapping[UUID, int],
    b_sent: Mapping[UUID, int],
    a_accepted: Mapping[UUID, int],
    b_accepted: Mapping[UUID, int],
) -> int:
    """The part of the difference between two cities that nothing in flight explains, in minutes.

    `…_sent`: minutes by transfer that the city shows as sent and unanswered; `…_accepted`: minutes
    by transfer that the other city sent and this one accepted. 0, or somebody is wrong.
    """
    in_flight = sum(minutes for each, minutes in a_sent.items() if each in b_accepted)
    in_flight += sum(minutes for each, minutes in b_sent.items() if each in a_accepted)
    return difference(a_clearing, b_clearing) + in_flight
