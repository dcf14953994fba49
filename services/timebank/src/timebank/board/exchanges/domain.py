"""The rules of exchanges. Pure.

Each step is taken by the side that loses by it if it were not true: who receives says that it is
done, or that they have the object; who lends says that it came back. So nobody's minutes move on
the other's word alone. From `agreed` on the price and the deposit are held; an end frees or gives
them.

    requested ─▶ agreed ─▶ done                                   (service, surplus)
        │           ├────▶ handed_over ─▶ returned                (lend)
        │           │           ╰───────▶ claimed ─▶ settled | returned
        ╰─▶ declined, cancelled, expired      ╰▶ cancelled (agreed only)
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Literal
from uuid import UUID

from timebank.board.listings.domain import (
    Category,
    Kind,
    Listing,
    OwnerKind,
    What,
    may_see,
)
from timebank.domain import Actor, Rejected

Status = Literal[
    "requested",
    "agreed",
    "handed_over",
    "claimed",
    "done",
    "returned",
    "settled",
    "declined",
    "cancelled",
    "expired",
]
Side = Literal["giver", "receiver"]
Effect = Literal["hold_price", "hold_deposit", "release_price", "release_deposit", "pay", "settle"]

# A hold ends within 366 days; a loan ends early enough for its deposit to outlast it.
LOAN_AHEAD_MAX = timedelta(days=275)
DEPOSIT_OUTLASTS = timedelta(days=90)
PRICE_HELD = timedelta(days=365)
REQUEST_WAITS = timedelta(days=60)
WAITING_PER_LISTING_MAX = 20
WAITING_PER_REQUESTER_MAX = 50


@dataclass(frozen=True, slots=True)
class Party:
    kind: OwnerKind
    id: UUID


@dataclass(frozen=True, slots=True)
class Exchange:
    """What two agree on over a listing, at the terms of when it was asked for.

    `minutes` is the price of the whole, `deposit_minutes` what the receiver leaves for a loan.
    `from_on` and `until_on` are the days of a loan, both included, in the city.
    """

    id: UUID
    listing_id: UUID
    city_id: str
    kind: Kind
    what: What
    category: Category
    requester_id: UUID
    requester_city_id: str
    giver: Party
    receiver: Party
    minutes: int
    deposit_minutes: int
    quantity: int | None
    from_on: date | None
    until_on: date | None
    message: str | None
    created_at: datetime
    status: Status = "requested"
    price_hold_id: UUID | None = None
    deposit_hold_id: UUID | None = None
    claimed_minutes: int | None = None
    settled_minutes: int | None = None
    claim_note: str | None = None
    ruling_note: str | None = None
    contribution_id: UUID | None = None
    transfer_id: UUID | None = None
    ended_at: datetime | None = None
    version: int = 1

    @property
    def owner_side(self) -> Side:
        return "giver" if self.kind == "offer" else "receiver"

    @property
    def requester_side(self) -> Side:
        return "receiver" if self.kind == "offer" else "giver"

    def party(self, side: Side) -> Party:
        return self.giver if side == "giver" else self.receiver


@dataclass(frozen=True, slots=True)
class Terms:
    """What a requester asks for; None: as the listing says."""

    message: str | None = None
    minutes: int | None = None
    quantity: int | None = None
    from_on: date | None = None
    until_on: date | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The exchange after a step, what it does to minutes, in this order, and how many of the
    listing's surplus it takes (negative: gives back)."""

    exchange: Exchange
    effects: tuple[Effect, ...] = ()
    taken: int = 0


def acts_for(actor: Actor, exchange: Exchange, side: Side) -> bool:
    """A member acts for themselves; a steward of the city for an organisation, unless they are
    the other side."""
    party = exchange.party(side)
    if party.kind == "member":
        return actor.id == str(party.id)
    return actor.is_steward_of(exchange.city_id) and actor.id not in {
        str(exchange.giver.id),
        str(exchange.receiver.id),
    }


def is_party(actor: Actor, exchange: Exchange) -> bool:
    return acts_for(actor, exchange, "giver") or acts_for(actor, exchange, "receiver")


def may_read(actor: Actor, exchange: Exchange) -> bool:
    """Both sides, and the stewards and mediators of its city."""
    in_city = actor.city_id == exchange.city_id
    return is_party(actor, exchange) or (in_city and (actor.steward or actor.mediator))


def not_theirs(actor: Actor, exchange: Exchange, detail: str) -> Rejected:
    """Forbidden to those who may know of it; absent for all others."""
    if may_read(actor, exchange) or actor.may_know_of(exchange.city_id):
        return Rejected("forbidden", detail)
    return Rejected("not_found", "There is no such exchange.")


def request(
    listing: Listing,
    actor: Actor,
    *,
    exchange_id: UUID,
    requester_id: UUID,
    requester_city_id: str,
    terms: Terms,
    now: datetime,
    today: date,
) -> Exchange | Rejected:
    """Ask for an offer, or propose oneself for a need. `today` is the day in the listing's city."""
    if not may_see(actor, listing):
        return Rejected("not_found", "There is no such listing.")
    if listing.owner_id == requester_id:
        return Rejected("own_listing", "This listing is your own.", field="path.listing_id")
    if listing.status != "open" or (
        listing.available_until is not None and listing.available_until < today
    ):
        return Rejected("listing_closed", "This listing is closed.")
    minutes = listing.price_minutes if terms.minutes is None else terms.minutes
    if requester_city_id != listing.city_id and (minutes or listing.deposit_minutes):
        return Rejected(
            "cross_city_not_available",
            "Between cities only what costs nothing can be exchanged. Minutes cross cities by"
            " clearing: POST /v1/clearing/transfers.",
            field="body.minutes" if terms.minutes else "path.listing_id",
        )
    quantity = terms.quantity
    if listing.what == "surplus" and quantity is None:
        quantity = 1
    refused = check_days(listing, terms, today) or check_quantity(listing, quantity)
    if refused:
        return refused
    owner = Party(listing.owner_kind, listing.owner_id)
    requester = Party("member", requester_id)
    giver, receiver = (owner, requester) if listing.kind == "offer" else (requester, owner)
    return Exchange(
        id=exchange_id,
        listing_id=listing.id,
        city_id=listing.city_id,
        kind=listing.kind,
        what=listing.what,
        category=listing.category,
        requester_id=requester_id,
        requester_city_id=requester_city_id,
        giver=giver,
        receiver=receiver,
        minutes=minutes,
        deposit_minutes=listing.deposit_minutes,
        quantity=quantity,
        from_on=terms.from_on,
        until_on=terms.until_on,
        message=terms.message or None,
        created_at=now,
    )


def check_days(listing: Listing, terms: Terms, today: date) -> Rejected | None:
    """The days of a loan: both, in order, from today on, not beyond the listing's last day."""
    if listing.what != "lend":
        if terms.from_on is None and terms.until_on is None:
            return None
        return Rejected("wrong_days", "Only a loan has days.", field="body.from")
    if terms.from_on is None or terms.until_on is None:
        missing = "body.from" if terms.from_on is None else "body.until"
        return Rejected("wrong_days", "A loan has a first and a last day.", field=missing)
    if terms.from_on < today:
        return Rejected("wrong_days", "This day is past.", field="body.from")
    if terms.until_on < terms.from_on:
        return Rejected("wrong_days", "The last day is before the first.", field="body.until")
    if terms.until_on > today + LOAN_AHEAD_MAX:
        return Rejected(
            "wrong_days",
            f"A loan ends within {LOAN_AHEAD_MAX.days} days from now.",
            field="body.until",
        )
    if listing.available_until is not None and terms.until_on > listing.available_until:
        return Rejected(
            "wrong_days", f"It is lent until {listing.available_until}.", field="body.until"
        )
    return None


def check_quantity(listing: Listing, quantity: int | None) -> Rejected | None:
    if listing.left is None:
        if quantity is None:
            return None
        return Rejected("wrong_terms", "Only a surplus has a quantity.", field="body.quantity")
    if quantity is not None and quantity > listing.left:
        return Rejected("nothing_left", f"Only {listing.left} are left.", field="body.quantity")
    return None


def agree(exchange: Exchange, listing: Listing, actor: Actor, today: date) -> Step | Rejected:
    """The listing's owner says yes: price and deposit are held from now on."""
    refused = check_step(exchange, actor, (exchange.owner_side,), ("requested",))
    if refused:
        return refused
    if exchange.until_on is not None and exchange.until_on < today:
        return Rejected("wrong_step", "The days that were asked for are past.")
    refused = check_quantity(listing, exchange.quantity)
    if refused:
        return refused
    effects: list[Effect] = []
    if exchange.minutes:
        effects.append("hold_price")
    if exchange.deposit_minutes:
        effects.append("hold_deposit")
    return Step(moved(exchange, "agreed"), tuple(effects), taken=exchange.quantity or 0)


def decline(exchange: Exchange, actor: Actor, now: datetime) -> Step | Rejected:
    """The listing's owner says no."""
    refused = check_step(exchange, actor, (exchange.owner_side,), ("requested",))
    return refused or Step(ended(exchange, "declined", now))


def cancel(exchange: Exchange, actor: Actor, now: datetime) -> Step | Rejected:
    """Who asked takes it back; once agreed, either side, until it is done or handed over."""
    if exchange.status == "requested":
        refused = check_step(exchange, actor, (exchange.requester_side,), ("requested",))
        return refused or Step(ended(exchange, "cancelled", now))
    return check_step(exchange, actor, ("giver", "receiver"), ("agreed",)) or abandon(exchange, now)


def abandon(exchange: Exchange, now: datetime) -> Step:
    """An agreement that ends undone: what was held and what was promised is free again."""
    effects: list[Effect] = []
    if exchange.price_hold_id:
        effects.append("release_price")
    if exchange.deposit_hold_id:
        effects.append("release_deposit")
    return Step(ended(exchange, "cancelled", now), tuple(effects), taken=-(exchange.quantity or 0))


def finish(exchange: Exchange, actor: Actor, now: datetime) -> Step | Rejected:
    """Who received says that a service or a surplus is done, and gives its price."""
    if exchange.what == "lend":
        return check_reader(exchange, actor) or Rejected(
            "wrong_step", "A loan is handed over and returned."
        )
    refused = check_step(exchange, actor, ("receiver",), ("agreed",))
    return refused or Step(ended(exchange, "done", now), paying(exchange))


def hand_over(exchange: Exchange, actor: Actor) -> Step | Rejected:
    """Who borrows says that they have the object, and gives the price of the loan."""
    if exchange.what != "lend":
        return check_reader(exchange, actor) or Rejected("wrong_step", "This is no loan.")
    refused = check_step(exchange, actor, ("receiver",), ("agreed",))
    return refused or Step(moved(exchange, "handed_over"), paying(exchange))


def paying(exchange: Exchange) -> tuple[Effect, ...]:
    return ("release_price", "pay") if exchange.minutes else ()


def take_back(exchange: Exchange, actor: Actor, now: datetime) -> Step | Rejected:
    """Who lent says that it came back, also after a claim: the deposit is free again."""
    refused = check_step(exchange, actor, ("giver",), ("handed_over", "claimed"))
    return refused or Step(ended(exchange, "returned", now), releasing(exchange))


def releasing(exchange: Exchange) -> tuple[Effect, ...]:
    return ("release_deposit",) if exchange.deposit_hold_id else ()


def claim(exchange: Exchange, actor: Actor, *, minutes: int, note: str | None) -> Step | Rejected:
    """Who lent claims of the deposit what a damage, or a loss, is worth."""
    refused = check_step(exchange, actor, ("giver",), ("handed_over",))
    if refused:
        return refused
    if minutes > exchange.deposit_minutes:
        return Rejected("exceeds_deposit", f"The deposit is {exchange.deposit_minutes} minutes.")
    return Step(replace(moved(exchange, "claimed"), claimed_minutes=minutes, claim_note=note))


def accept(exchange: Exchange, actor: Actor, now: datetime) -> Step | Rejected:
    """Who borrowed accepts the claim."""
    refused = check_step(exchange, actor, ("receiver",), ("claimed",))
    return refused or settle(exchange, exchange.claimed_minutes or 0, None, now)


def rule(
    exchange: Exchange, actor: Actor, *, minutes: int, note: str | None, now: datetime
) -> Step | Rejected:
    """A mediator of the city, of neither side, says what of the claim is given; 0: nothing."""
    if not actor.mediator or actor.city_id != exchange.city_id or is_party(actor, exchange):
        return not_theirs(actor, exchange, "A mediator of the city who is not a side rules.")
    if exchange.status != "claimed":
        return wrong_step(exchange)
    if minutes > (exchange.claimed_minutes or 0):
        return Rejected("exceeds_deposit", f"The claim is {exchange.claimed_minutes} minutes.")
    return settle(exchange, minutes, note, now)


def settle(exchange: Exchange, minutes: int, note: str | None, now: datetime) -> Step:
    settled = replace(ended(exchange, "settled", now), settled_minutes=minutes, ruling_note=note)
    return Step(settled, ("settle",) if minutes else releasing(exchange))


def expire(exchange: Exchange, now: datetime) -> Step | None:
    """A request that nobody answered ends; None: it is not due, or was answered."""
    if exchange.status != "requested" or now < exchange.created_at + REQUEST_WAITS:
        return None
    return Step(ended(exchange, "expired", now))


def close_listing(exchange: Exchange, now: datetime) -> Step:
    """A request for a listing that closed is declined; the caller knows that it waits."""
    return Step(ended(exchange, "declined", now))


def leave(exchange: Exchange, now: datetime) -> Step:
    """A side is gone for good: what runs ends, and what was held is free again. A loan that is
    out ends as returned: nobody is left to answer a claim, or to make one."""
    if exchange.status == "requested":
        return Step(ended(exchange, "cancelled", now))
    if exchange.status == "agreed":
        return abandon(exchange, now)
    return Step(ended(exchange, "returned", now), releasing(exchange))


def check_step(
    exchange: Exchange, actor: Actor, sides: tuple[Side, ...], statuses: tuple[Status, ...]
) -> Rejected | None:
    """Whether one of these sides asks, and the exchange is where the step begins."""
    if not any(acts_for(actor, exchange, side) for side in sides):
        return not_theirs(actor, exchange, "This step is the other side's.")
    return None if exchange.status in statuses else wrong_step(exchange)


def check_reader(exchange: Exchange, actor: Actor) -> Rejected | None:
    if is_party(actor, exchange):
        return None
    return not_theirs(actor, exchange, "This exchange is of others.")


def wrong_step(exchange: Exchange) -> Rejected:
    return Rejected("wrong_step", f"This exchange is {exchange.status}.")


def moved(exchange: Exchange, status: Status) -> Exchange:
    return replace(exchange, status=status, version=exchange.version + 1)


def ended(exchange: Exchange, status: Status, now: datetime) -> Exchange:
    return replace(exchange, status=status, ended_at=now, version=exchange.version + 1)


def price_expires_at(now: datetime) -> datetime:
    return now + PRICE_HELD


def deposit_expires_at(now: datetime, until_on: date, today: date) -> datetime:
    """Some time after the last day of the loan, for a claim to be made and answered."""
    return now + (until_on - today) + DEPOSIT_OUTLASTS
