"""What happens to exchanges: lock the listing, then the accounts; decide, move minutes, save, tell.

The price stays with the receiver, held for the giver, until the receiver says that it is done: in
that transaction the hold is released and the same minutes are given. What a member did for a
member is a contribution, which gives them itself; everything else is a transfer. The deposit is
released, or given in full or in part, as its own hold.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from common.db import Conn
from common.ids import new_id
from timebank import service as ledger
from timebank import store as ledger_store
from timebank.board.exchanges import domain, endings, store
from timebank.board.exchanges.domain import Effect, Exchange, Party, Step, Terms
from timebank.board.listings import service as listings
from timebank.board.listings import store as listing_store
from timebank.board.listings.domain import Listing
from timebank.contributions import service as contributions
from timebank.contributions.domain import Activity
from timebank.domain import Account, Actor, Leg, Rejected, TransferRequest
from timebank.holds import service as holds
from timebank.notices import NoticeKind

NOT_FOUND = Rejected("not_found", "There is no such exchange.")
# The categories of the board that are activities of a contribution; of others: "other".
ACTIVITIES: dict[str, Activity] = {
    "cooking": "cooking",
    "cleaning": "cleaning",
    "repair": "repair",
    "garden": "garden",
    "care": "care",
    "childcare": "childcare",
    "teaching": "teaching",
    "reception": "reception",
    "transport": "transport",
    "animation": "animation",
    "administration": "administration",
    "craft": "craft",
}

Decide = Callable[[Exchange, Listing], Step | Rejected]


async def request(
    conn: Conn,
    listing_id: UUID,
    actor: Actor,
    *,
    exchange_id: UUID,
    terms: Terms,
    now: datetime,
) -> Exchange | Rejected:
    """Ask for an offer, or propose oneself for a need."""
    member = await listings.active_member(conn, actor)
    if isinstance(member, Rejected):
        return member
    await listing_store.lock_owner(conn, member.member_id)
    listing = await listing_store.lock_listing(conn, listing_id)
    if listing is None:
        return listings.NOT_FOUND
    exchange = domain.request(
        listing,
        actor,
        exchange_id=exchange_id,
        requester_id=member.member_id,
        requester_city_id=member.city_id,
        terms=terms,
        now=now,
        today=await ledger_store.city_today(conn, listing.city_id, now),
    )
    if isinstance(exchange, Rejected):
        return exchange
    refused = await check_waiting(conn, exchange)
    if refused:
        return refused
    if not await store.add_exchange(conn, exchange):
        return Rejected("exchange_id_reused", "Another exchange has this exchange_id.")
    await endings.publish(conn, exchange, now)
    await endings.notify(conn, exchange, exchange.owner_side, "exchange.requested", now)
    return exchange


async def check_waiting(conn: Conn, exchange: Exchange) -> Rejected | None:
    """Requests without an answer are few; one for each listing and person."""
    of_listing, of_requester, of_both = await store.count_waiting(
        conn, listing_id=exchange.listing_id, requester_id=exchange.requester_id
    )
    if of_both:
        return Rejected("already_requested", "You asked already, and wait for an answer.")
    if of_listing >= domain.WAITING_PER_LISTING_MAX:
        return Rejected("too_many_requests", "Too many wait for an answer about this listing.")
    if of_requester >= domain.WAITING_PER_REQUESTER_MAX:
        return Rejected("too_many_requests", "Too many of your requests wait for an answer.")
    return None


async def take_step(
    conn: Conn, exchange_id: UUID, actor: Actor, decide: Decide, now: datetime
) -> Exchange | Rejected:
    """Take one step of an exchange, with all that it moves.

    A refusal may come after something was written: whoever calls this rolls back then.
    """
    found = await store.find_exchange(conn, exchange_id)
    if found is None:
        return NOT_FOUND
    listing = await listing_store.lock_listing(conn, found.listing_id)
    # Again, now that nobody else can change it.
    exchange = await store.find_exchange(conn, exchange_id)
    if listing is None or exchange is None:
        return NOT_FOUND
    step = decide(exchange, listing)
    if isinstance(step, Rejected):
        return step
    return await carry_out(conn, step, listing, actor, now)


async def carry_out(
    conn: Conn, step: Step, listing: Listing, actor: Actor, now: datetime
) -> Exchange | Rejected:
    """Move the minutes of a step and save it."""
    exchange = step.exchange
    for effect in step.effects:
        moved = await apply(conn, exchange, effect, actor, now)
        if isinstance(moved, Rejected):
            return moved
        exchange = moved
    await endings.save(conn, exchange, now)
    if step.taken:
        changed = replace(listing, taken=listing.taken + step.taken, version=listing.version + 1)
        await listing_store.save_taken(conn, changed)
        await listings.tell(conn, changed, now)
    return exchange


async def apply(
    conn: Conn, exchange: Exchange, effect: Effect, actor: Actor, now: datetime
) -> Exchange | Rejected:
    """Do one effect; the exchange with what came of it."""
    # What moves was agreed by both sides, or ruled: the step that led here has looked.
    mover = actor.for_the_city(exchange.city_id)
    if effect == "hold_price":
        hold_id = await hold(
            conn, exchange, mover, exchange.minutes, domain.price_expires_at(now), now
        )
        return (
            hold_id if isinstance(hold_id, Rejected) else replace(exchange, price_hold_id=hold_id)
        )
    if effect == "hold_deposit" and exchange.until_on is not None:
        today = await ledger_store.city_today(conn, exchange.city_id, now)
        until = domain.deposit_expires_at(now, exchange.until_on, today)
        hold_id = await hold(conn, exchange, mover, exchange.deposit_minutes, until, now)
        if isinstance(hold_id, Rejected):
            return hold_id
        return replace(exchange, deposit_hold_id=hold_id)
    if effect == "release_price":
        return await release(conn, exchange.price_hold_id, mover, now) or exchange
    if effect == "release_deposit":
        return await release(conn, exchange.deposit_hold_id, mover, now) or exchange
    if effect == "pay":
        return await pay(conn, exchange, mover, now)
    return await give_deposit(conn, exchange, mover, now)


async def accounts_of(conn: Conn, exchange: Exchange) -> tuple[Account, Account] | Rejected:
    """The accounts of who receives, and so gives minutes, and of who gives."""
    receiver = await account_of(conn, exchange.receiver, exchange.city_id)
    giver = await account_of(conn, exchange.giver, exchange.city_id)
    if receiver is None or giver is None:
        return Rejected("account_not_found", "A side has no account in this city.")
    return receiver, giver


async def account_of(conn: Conn, party: Party, city_id: str) -> Account | None:
    if party.kind == "member":
        return await ledger_store.find_member_account(conn, party.id, city_id)
    return await ledger_store.find_organisation_account(conn, party.id, city_id)


def discreet(rejected: Rejected) -> Rejected:
    """A refusal without the balance of the other side."""
    if rejected.code == "insufficient_time":
        return Rejected("insufficient_time", "Who receives has not enough time left for this.")
    return Rejected(rejected.code, rejected.detail)


async def hold(
    conn: Conn, exchange: Exchange, mover: Actor, minutes: int, expires_at: datetime, now: datetime
) -> UUID | Rejected:
    accounts = await accounts_of(conn, exchange)
    if isinstance(accounts, Rejected):
        return accounts
    receiver, giver = accounts
    wanted = TransferRequest(
        transfer_id=new_id(),
        own_id=False,
        key=None,
        actor=mover,
        legs=(Leg(receiver.id, -minutes), Leg(giver.id, minutes)),
    )
    placed = await holds.place(conn, wanted, expires_at=expires_at, now=now, purpose="exchange")
    return discreet(placed) if isinstance(placed, Rejected) else placed.id


async def release(conn: Conn, hold_id: UUID | None, mover: Actor, now: datetime) -> Rejected | None:
    """Free what is held, if it is still held."""
    if hold_id is None:
        return None
    voided = await holds.void(conn, hold_id, mover, now, purpose="exchange")
    if isinstance(voided, Rejected):
        if voided.code != "hold_expired":
            return voided
        # Its time has come, and perhaps the worker has not: an ended exchange holds nothing.
        await holds.expire(conn, hold_id, now)
    return None


async def pay(conn: Conn, exchange: Exchange, mover: Actor, now: datetime) -> Exchange | Rejected:
    """Give the price, which was free for this since a moment ago."""
    members = exchange.giver.kind == exchange.receiver.kind == "member"
    if exchange.what == "service" and members:
        done = await contributions.record_exchange(
            conn,
            contribution_id=new_id(),
            giver_id=exchange.giver.id,
            receiver_id=exchange.receiver.id,
            city_id=exchange.city_id,
            minutes=exchange.minutes,
            performed_on=await ledger_store.city_today(conn, exchange.city_id, now),
            activity=ACTIVITIES.get(exchange.category, "other"),
            note=None,
            actor=mover,
            now=now,
        )
        if isinstance(done, Rejected):
            return discreet(done)
        return replace(exchange, contribution_id=done.id)
    accounts = await accounts_of(conn, exchange)
    if isinstance(accounts, Rejected):
        return accounts
    receiver, giver = accounts
    wanted = TransferRequest(
        transfer_id=new_id(),
        own_id=False,
        key=None,
        actor=mover,
        legs=(Leg(receiver.id, -exchange.minutes), Leg(giver.id, exchange.minutes)),
    )
    posted = await ledger.post_now(conn, wanted, now)
    if isinstance(posted, Rejected):
        return discreet(posted)
    return replace(exchange, transfer_id=posted.id)


async def give_deposit(
    conn: Conn, exchange: Exchange, mover: Actor, now: datetime
) -> Exchange | Rejected:
    """Give what was settled of the deposit; the rest is free again."""
    if exchange.deposit_hold_id is None:
        return Rejected("hold_expired", "Nothing is held for this loan.")
    posted = await holds.post(
        conn,
        exchange.deposit_hold_id,
        mover,
        minutes=exchange.settled_minutes,
        transfer_id=new_id(),
        key=None,
        now=now,
        purpose="exchange",
    )
    return discreet(posted) if isinstance(posted, Rejected) else exchange


# ── The steps ───────────────────────────────────────────────────────────────────────────────────


async def agree(conn: Conn, exchange_id: UUID, actor: Actor, now: datetime) -> Exchange | Rejected:
    """The listing's owner says yes; price and deposit are held."""
    found = await store.find_exchange(conn, exchange_id)
    if found is None:
        return NOT_FOUND
    today = await ledger_store.city_today(conn, found.city_id, now)
    # The lock comes before the look at other agreements, or two of them would not see each other.
    await listing_store.lock_listing(conn, found.listing_id)
    promised = (
        found.what == "lend" and found.kind == "offer" and await store.is_promised(conn, found)
    )

    def decide(exchange: Exchange, listing: Listing) -> Step | Rejected:
        step = domain.agree(exchange, listing, actor, today)
        if promised and not isinstance(step, Rejected):
            return Rejected("object_taken", "It is promised to somebody else on these days.")
        return step

    agreed = await take_step(conn, exchange_id, actor, decide, now)
    if isinstance(agreed, Exchange):
        await endings.notify(
            conn, agreed, agreed.requester_side, "exchange.agreed", now, minutes=agreed.minutes
        )
    return agreed


async def decline(
    conn: Conn, exchange_id: UUID, actor: Actor, now: datetime
) -> Exchange | Rejected:
    done = await take_step(
        conn, exchange_id, actor, lambda exchange, _: domain.decline(exchange, actor, now), now
    )
    if isinstance(done, Exchange):
        await endings.notify(conn, done, done.requester_side, "exchange.declined", now)
    return done


async def cancel(conn: Conn, exchange_id: UUID, actor: Actor, now: datetime) -> Exchange | Rejected:
    """Take a request or an agreement back; what was held is free again."""
    done = await take_step(
        conn, exchange_id, actor, lambda exchange, _: domain.cancel(exchange, actor, now), now
    )
    if isinstance(done, Exchange):
        await tell_other(conn, done, actor, "exchange.cancelled", now)
    return done


async def finish(conn: Conn, exchange_id: UUID, actor: Actor, now: datetime) -> Exchange | Rejected:
    """Who received says that it is done, and gives its price."""
    done = await take_step(
        conn, exchange_id, actor, lambda exchange, _: domain.finish(exchange, actor, now), now
    )
    if isinstance(done, Exchange):
        await endings.notify(conn, done, "giver", "exchange.done", now, minutes=done.minutes)
    return done


async def hand_over(
    conn: Conn, exchange_id: UUID, actor: Actor, now: datetime
) -> Exchange | Rejected:
    """Who borrows says that they have the object, and gives the price of the loan."""
    found = await store.find_exchange(conn, exchange_id)
    if found is None:
        return NOT_FOUND
    await listing_store.lock_listing(conn, found.listing_id)
    out = found.kind == "offer" and await store.is_out(conn, found.listing_id)

    def decide(exchange: Exchange, _: Listing) -> Step | Rejected:
        step = domain.hand_over(exchange, actor)
        if out and not isinstance(step, Rejected):
            return Rejected("object_out", "Somebody else has it: they return it first.")
        return step

    done = await take_step(conn, exchange_id, actor, decide, now)
    if isinstance(done, Exchange):
        await endings.notify(conn, done, "giver", "exchange.handed_over", now, until=done.until_on)
    return done


async def take_back(
    conn: Conn, exchange_id: UUID, actor: Actor, now: datetime
) -> Exchange | Rejected:
    """Who lent says that it came back; the deposit is free again."""
    done = await take_step(
        conn, exchange_id, actor, lambda exchange, _: domain.take_back(exchange, actor, now), now
    )
    if isinstance(done, Exchange):
        await endings.notify(conn, done, "receiver", "exchange.returned", now)
    return done


async def claim(
    conn: Conn, exchange_id: UUID, actor: Actor, *, minutes: int, note: str | None, now: datetime
) -> Exchange | Rejected:
    """Who lent claims a part of the deposit."""
    done = await take_step(
        conn,
        exchange_id,
        actor,
        lambda exchange, _: domain.claim(exchange, actor, minutes=minutes, note=note),
        now,
    )
    if isinstance(done, Exchange):
        await endings.notify(conn, done, "receiver", "exchange.damaged", now, minutes=minutes)
    return done


async def accept(conn: Conn, exchange_id: UUID, actor: Actor, now: datetime) -> Exchange | Rejected:
    """Who borrowed accepts the claim; it is given of the deposit."""
    done = await take_step(
        conn, exchange_id, actor, lambda exchange, _: domain.accept(exchange, actor, now), now
    )
    if isinstance(done, Exchange):
        await endings.notify(
            conn, done, "giver", "exchange.ruled", now, minutes=done.settled_minutes
        )
    return done


async def rule(
    conn: Conn, exchange_id: UUID, actor: Actor, *, minutes: int, note: str | None, now: datetime
) -> Exchange | Rejected:
    """A mediator says what of the claim is given."""
    done = await take_step(
        conn,
        exchange_id,
        actor,
        lambda exchange, _: domain.rule(exchange, actor, minutes=minutes, note=note, now=now),
        now,
    )
    if isinstance(done, Exchange):
        for side in ("giver", "receiver"):
            await endings.notify(conn, done, side, "exchange.ruled", now, minutes=minutes)
    return done


async def tell_other(
    conn: Conn, exchange: Exchange, actor: Actor, kind: NoticeKind, now: datetime
) -> None:
    """Tell the side that did not do this."""
    for side in ("giver", "receiver"):
        if not domain.acts_for(actor, exchange, side):
            await endings.notify(conn, exchange, side, kind, now)


# ── Without being asked ─────────────────────────────────────────────────────────────────────────


async def expire(conn: Conn, exchange: Exchange, now: datetime) -> bool:
    """End a request that nobody answered. False when it was answered meanwhile."""
    await listing_store.lock_listing(conn, exchange.listing_id)
    current = await store.find_exchange(conn, exchange.id)
    step = domain.expire(current, now) if current else None
    if step is None:
        return False
    await endings.save(conn, step.exchange, now)
    await endings.notify(
        conn,
        step.exchange,
        step.exchange.requester_side,
        "exchange.declined",
        now,
        because="unanswered",
    )
    return True
