"""What clearing does: one transaction each, in which state, postings and the signed message that
tells of them stand or fall together.

The rules are in domain.py, agreements in agreements/. Locks are taken in one order: the agreement
of the two cities, then the transfer, then accounts in id order.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from common.clock import Clock
from common.db import Conn, Pool
from common.ids import new_id
from common.logging import get_logger
from timebank import notices
from timebank import service as ledger
from timebank import store as ledger_store
from timebank.clearing import domain, keys_store, messages, rotation, store, waiting
from timebank.clearing.agreements import store as agreements_store
from timebank.clearing.agreements.service import hear_agreement
from timebank.clearing.agreements.store import Bond
from timebank.clearing.domain import Decision, Pair, Prepare
from timebank.clearing.handover import Chain
from timebank.clearing.keys import Vault
from timebank.clearing.messages import (
    Message,
    ReversalBody,
    to_prepare,
)
from timebank.clearing.sending import say
from timebank.clearing.store import Arrival, Departure, Reversal
from timebank.domain import (
    Account,
    Actor,
    Leg,
    Rejected,
    Transfer,
    TransferKind,
    TransferRequest,
)

LOOK_EVERY_S = 1.0
QUERIES_AT_ONCE = 100

log = get_logger(__name__)

NO_AGREEMENT = Rejected("no_agreement", "The two cities have no agreement in force.")
NOT_FOUND = Rejected("not_found", "There is no such transfer.")


# ── Messages ────────────────────────────────────────────────────────────────────────────────────


async def hear(conn: Conn, vault: Vault, message: Message, now: datetime) -> None:
    """What a message to a city of ours brings about. Heard again, the same and nothing more.

    One that is not signed with the key that our agreement pins is nobody's, and changes nothing;
    its key may be one that we have yet to hear of, so it waits.
    """
    body = message.body
    if not await ledger_store.has_book(conn, message.to_city):
        return
    bond = await agreements_store.lock_bond(conn, message.to_city, message.from_city)
    chain = await pinned_chain(conn, bond, message)
    sent_at = message.envelope.sent_at
    if chain is None or not any(message.is_from(key) for key in chain.believed(now, sent_at)):
        log.warning("clearing_message_not_believed", kind=body.kind, peer=message.from_city)
        if chain is None or not any(map(message.is_from, chain.keys)):
            await waiting.set_aside(conn, message, now)
        return
    await store.keep_message(conn, message.to_city, message, sent=False, now=now)
    if body.kind in ("prepare", "query"):
        await arrive(conn, vault, bond, to_prepare(message), now)
    elif body.kind in ("accepted", "rejected"):
        await conclude(conn, message, Decision(body.transfer_id, body.reason, body.decided_at), now)
    elif body.kind == "reversal.agreed":
        await hear_reversal(conn, vault, message, now)
    else:
        await hear_agreement(conn, bond, chain.newest, message, now)


async def pinned_chain(conn: Conn, bond: Bond | None, message: Message) -> Chain | None:
    """The keys up to the one that is pinned, or, before anything is pinned, up to the one that the
    peer says is its own, which a steward will look at."""
    renews = message.body.kind == "agreement.proposed"
    if bond is None or (renews and bond.agreement.state == "ended"):
        return await keys_store.peer_chain(conn, message.from_city) if renews else None
    return await keys_store.with_handovers(conn, message.from_city, bond.peer_key)


# ── Accounts ────────────────────────────────────────────────────────────────────────────────────


async def lock_pair(
    conn: Conn, bond: Bond, *others: UUID, commons: bool
) -> tuple[Pair, dict[UUID, Account]] | None:
    """The accounts of a pair, with others of the same city, locked in id order.

    The commons is locked only where a levy moves it: else every transfer would wait for every
    other. None before the agreement opened them.
    """
    city_id, peer = bond.city_id, bond.peer_city_id
    in_transit = await ledger_store.find_account_of(conn, city_id, "in_transit", None, peer)
    clearing = await ledger_store.find_account_of(conn, city_id, "clearing", None, peer)
    common = await ledger_store.find_common_account(conn, city_id, "commons")
    if in_transit is None or clearing is None or common is None:
        return None
    ids = [in_transit.id, clearing.id, *others, *([common.id] if commons else [])]
    accounts = await ledger_store.lock_accounts(conn, ids)
    pair = Pair(
        accounts[in_transit.id],
        accounts[clearing.id],
        accounts.get(common.id, common),
        netting_up_minutes=bond.netting_up_minutes,
        netting_down_minutes=bond.netting_down_minutes,
    )
    return pair, accounts


async def post(
    conn: Conn,
    city_id: str,
    by: str,
    purpose: TransferKind,
    legs: tuple[Leg, ...],
    now: datetime,
    memo: str | None = None,
) -> Transfer | Rejected:
    """Post what the protocol has decided, in the name of the city."""
    actor = Actor(by, city_id).for_the_city(city_id)
    request = TransferRequest(new_id(), True, None, actor, legs, memo=memo, purpose=purpose)
    return await ledger.post_now(conn, request, now)


async def post_for_sure(
    conn: Conn, city_id: str, purpose: TransferKind, legs: tuple[Leg, ...], now: datetime
) -> Transfer:
    """Post what nothing can refuse: its minutes were set aside, or it was decided under lock.

    Raises RuntimeError when something does: the message is tried again, then a dead letter.
    """
    posted = await post(conn, city_id, "clearing", purpose, legs, now)
    if isinstance(posted, Rejected):
        raise RuntimeError(f"the {purpose} in {city_id} was refused: {posted.code}")
    return posted


# ── Source ──────────────────────────────────────────────────────────────────────────────────────


async def depart(
    conn: Conn,
    vault: Vault,
    actor: Actor,
    payer_account: UUID,
    prepare: Prepare,
    memo: str | None,
    now: datetime,
) -> Departure | Rejected:
    """Set minutes aside for a member of another city, and ask that city to take them in."""
    bond = await agreements_store.lock_bond(conn, prepare.from_city, prepare.to_city)
    if bond is None:
        return NO_AGREEMENT
    levies = prepare.reverses is not None or bond.agreement.levy_out_permille > 0
    locked = await lock_pair(conn, bond, payer_account, commons=levies)
    if locked is None:
        return NO_AGREEMENT
    pair, accounts = locked
    payer = accounts.get(payer_account)
    if payer is None or payer.city_id != prepare.from_city:
        return Rejected("not_found", "There is no such account.", "payer")
    if not actor.may_pay_from(payer):
        if actor.may_know_of(payer.city_id):
            return Rejected("forbidden", "This account is not yours to give from.", "payer")
        return Rejected("not_found", "There is no such account.", "payer")
    original = (
        await store.find_arrival(conn, prepare.from_city, prepare.reverses)
        if prepare.reverses
        else None
    )
    decided = domain.depart(
        prepare,
        payer,
        pair,
        bond.agreement,
        now,
        levy_taken=original.levy_minutes if original else 0,
    )
    if isinstance(decided, Rejected):
        return decided
    outgoing, legs = decided
    posted = await post(conn, prepare.from_city, actor.id, "departure", legs, now, memo)
    if isinstance(posted, Rejected):
        return posted
    departure = Departure(outgoing, None, None, actor.id, memo, posted.id, None)
    if not await store.add_departure(conn, departure, domain.next_query_at(outgoing)):
        return Rejected("transfer_id_reused", "Another transfer has this transfer_id.")
    ask = messages.ask(prepare, again=False)
    await say(conn, vault, prepare.from_city, prepare.to_city, ask, now)
    return departure


async def conclude(conn: Conn, message: Message, answer: Decision, now: datetime) -> None:
    """Settle or return what was set aside, as the destination says."""
    city_id = message.to_city
    departure = await store.find_departure(conn, city_id, answer.transfer_id, lock=True)
    if departure is None or departure.outgoing.prepare.to_city != message.from_city:
        log.warning("clearing_answer_to_nothing", transfer_id=str(answer.transfer_id))
        return
    outgoing = departure.outgoing
    meaning = domain.conclude(outgoing, answer)
    if meaning == "nothing":
        return
    if meaning == "contradiction":
        log.error("clearing_contradiction", transfer_id=str(answer.transfer_id), city_id=city_id)
        return
    bond = await agreements_store.lock_bond(conn, city_id, message.from_city)
    locked = bond and await lock_pair(
        conn, bond, outgoing.payer_account, commons=outgoing.levy_minutes != 0
    )
    if not locked:
        raise RuntimeError(f"{city_id} has no accounts for {message.from_city}")
    pair, accounts = locked
    if meaning == "settle":
        legs = domain.settlement_legs(outgoing, pair)
    else:
        legs = domain.return_legs(outgoing, pair)
        await make_room(conn, legs, accounts, now)
    purpose: TransferKind = "settlement" if meaning == "settle" else "return"
    posted = await post_for_sure(conn, city_id, purpose, legs, now)
    await store.save_answer(conn, city_id, answer, posted.id, now)
    owner = accounts[outgoing.payer_account].owner_id
    if owner is not None and accounts[outgoing.payer_account].kind == "member":
        await notices.tell(
            conn,
            member_id=owner,
            kind="clearing.settled" if answer.accepted else "clearing.returned",
            subject={
                "transfer_id": answer.transfer_id,
                "minutes": outgoing.prepare.minutes,
                "city_id": message.from_city,
                "reason": answer.reason,
            },
            now=now,
        )


async def make_room(
    conn: Conn, legs: Sequence[Leg], accounts: Mapping[UUID, Account], now: datetime
) -> None:
    """Widen the limits that would keep minutes from coming home, and keep that they were."""
    for leg in legs:
        account = accounts[leg.account_id]
        wider = domain.room_for(account, leg.minutes)
        if wider != account:
            version = await ledger_store.save_limits(conn, wider, set_by="clearing", now=now)
            await ledger.tell_of(conn, wider, version, now)


async def ask_again(conn: Conn, vault: Vault, now: datetime) -> int:
    """Ask about what nobody has answered yet, as often as domain.next_query_at says; how many."""
    due = await store.lock_due(conn, now, QUERIES_AT_ONCE)
    for departure in due:
        outgoing = domain.queried(departure.outgoing, now)
        await store.save_query(conn, outgoing, domain.next_query_at(outgoing))
        prepare = outgoing.prepare
        again = messages.ask(prepare, again=True)
        await say(conn, vault, prepare.from_city, prepare.to_city, again, now)
    return len(due)


# ── Destination ─────────────────────────────────────────────────────────────────────────────────


async def arrive(
    conn: Conn, vault: Vault, bond: Bond | None, prepare: Prepare, now: datetime
) -> None:
    """Decide a transfer that comes, once, and say what was decided, as often as it is asked."""
    known = await store.find_arrival(conn, prepare.to_city, prepare.transfer_id)
    if known is None:
        known = await decide(conn, bond, prepare, now)
        await store.add_arrival(conn, known)
    elif known.prepare != prepare:
        log.error("clearing_prepare_changed", transfer_id=str(prepare.transfer_id))
        return
    reply = messages.answer(known.decision)
    await say(conn, vault, prepare.to_city, prepare.from_city, reply, now)


async def decide(conn: Conn, bond: Bond | None, prepare: Prepare, now: datetime) -> Arrival:
    """Accept a transfer and post it, or refuse it. The agreement's lock is held."""
    city_id = prepare.to_city
    original = (
        await store.find_departure(conn, city_id, prepare.reverses) if prepare.reverses else None
    )
    taken_back = prepare.reverses is not None and await store.is_taken_back(
        conn, city_id, prepare.reverses
    )
    account_id = await payee_account(conn, prepare, original)
    levies = prepare.reverses is not None or bool(bond and bond.agreement.levy_in_permille)
    others = [account_id] if account_id else []
    locked = await lock_pair(conn, bond, *others, commons=levies) if bond else None
    pair, accounts = locked or (None, {})
    payee = accounts.get(account_id) if account_id else None
    agreement = bond.agreement if bond else None
    sent = original.outgoing if original else None
    decision, legs = domain.decide(
        prepare, payee, pair, agreement, now, reversed_already=taken_back, original=sent
    )
    if not decision.accepted or agreement is None:
        return Arrival(prepare, decision, 0, None)
    posted = await post_for_sure(conn, city_id, "arrival", legs, now)
    levy = domain.levy_in(prepare, agreement, sent)
    if payee is not None and payee.owner_id is not None and payee.kind == "member":
        await notices.tell(
            conn,
            member_id=payee.owner_id,
            kind="clearing.received",
            subject={
                "transfer_id": prepare.transfer_id,
                "minutes": prepare.minutes - levy,
                "city_id": prepare.from_city,
            },
            now=now,
        )
    return Arrival(prepare, decision, levy, posted.id)


async def payee_account(conn: Conn, prepare: Prepare, original: Departure | None) -> UUID | None:
    """Where the minutes are to go: to who gave them, of a reversal, else to a member in service."""
    if prepare.reverses is not None:
        return original.outgoing.payer_account if original else None
    member = await ledger_store.find_member(conn, prepare.payee)
    if member is None or member.status != "active" or member.city_id != prepare.to_city:
        return None
    account = await ledger_store.find_member_account(conn, member.member_id, member.city_id)
    return account.id if account else None


# ── Taking back ─────────────────────────────────────────────────────────────────────────────────


async def agree_to_reverse(
    conn: Conn, vault: Vault, actor: Actor, transfer_id: UUID, now: datetime
) -> Reversal | Rejected:
    """A steward agrees that a transfer be taken back. When both cities have, the one that received
    gives back, levies included."""
    city_id = actor.city_id or ""
    if not actor.steward:
        return Rejected("forbidden", "Only stewards agree that a transfer be taken back.")
    arrival = await store.find_arrival(conn, city_id, transfer_id)
    departure = await store.find_departure(conn, city_id, transfer_id)
    if arrival is not None and arrival.decision.accepted:
        prepare, peer = arrival.prepare, arrival.prepare.from_city
    elif departure is not None and departure.outgoing.state == "settled":
        prepare, peer = departure.outgoing.prepare, departure.outgoing.prepare.to_city
    elif arrival is not None or departure is not None:
        return Rejected("not_reversible", "Only a transfer that was settled can be taken back.")
    else:
        return NOT_FOUND
    if prepare.reverses is not None:
        return Rejected("not_reversible", "A reversal is not taken back: transfer again.")
    await agreements_store.lock_bond(conn, city_id, peer)
    reversal = await store.lock_reversal(conn, city_id, transfer_id, peer)
    if reversal.reversal_id is not None:
        return Rejected("already_reversed", "This transfer was taken back before.")
    if reversal.agreed_at is None:
        reversal = replace(reversal, agreed_by=actor.id, agreed_at=now)
        body = ReversalBody(kind="reversal.agreed", transfer_id=transfer_id)
        await say(conn, vault, city_id, peer, body, now)
    return await give_back(conn, vault, reversal, arrival, now)


async def hear_reversal(conn: Conn, vault: Vault, message: Message, now: datetime) -> None:
    """The stewards of the peer agree that a transfer be taken back."""
    city_id, transfer_id = message.to_city, message.body.transfer_id
    arrival = await store.find_arrival(conn, city_id, transfer_id)
    departure = await store.find_departure(conn, city_id, transfer_id)
    peers = [arrival.prepare.from_city] if arrival else []
    peers += [departure.outgoing.prepare.to_city] if departure else []
    if message.from_city not in peers:
        return
    reversal = await store.lock_reversal(conn, city_id, transfer_id, message.from_city)
    if reversal.peer_agreed_at is None:
        reversal = replace(reversal, peer_agreed_at=now)
    await give_back(conn, vault, reversal, arrival, now)


async def give_back(
    conn: Conn, vault: Vault, reversal: Reversal, arrival: Arrival | None, now: datetime
) -> Reversal:
    """Send the minutes back, if it is here that they arrived and both cities have agreed.

    What prevents it, such as a payee who has spent them, is kept as `problem`; agreeing again tries
    again.
    """
    both = reversal.agreed_at is not None and reversal.peer_agreed_at is not None
    if both and arrival is not None and reversal.reversal_id is None:
        reversal = await send_back(conn, vault, reversal, arrival, now)
    await store.save_reversal(conn, reversal)
    return reversal


async def send_back(
    conn: Conn, vault: Vault, reversal: Reversal, arrival: Arrival, now: datetime
) -> Reversal:
    original = arrival.prepare
    city_id = original.to_city
    account = await ledger_store.find_member_account(conn, original.payee, city_id)
    if account is None:
        return replace(reversal, problem="account_closed")
    prepare = Prepare(
        transfer_id=new_id(),
        from_city=city_id,
        to_city=original.from_city,
        minutes=original.minutes,
        # Who gave is known to the other city alone, which looks it up by what is reversed.
        payee=original.transfer_id,
        deadline=now + domain.DEADLINE_DEFAULT,
        reverses=original.transfer_id,
    )
    actor = Actor(reversal.agreed_by or "clearing", city_id).for_the_city(city_id)
    sent = await depart(conn, vault, actor, account.id, prepare, None, now)
    if isinstance(sent, Rejected):
        return replace(reversal, problem=sent.code)
    return replace(reversal, reversal_id=prepare.transfer_id, problem=None)


# ── Keys and the worker ─────────────────────────────────────────────────────────────────────────


async def ensure_keys(conn: Conn, vault: Vault, now: datetime) -> int:
    """Make a key for every city of ours that has none, and publish it; how many."""
    made = 0
    for city_id in await store.cities_without_key(conn):
        public_key, sealed = vault.make(city_id)
        if await store.add_city_key(conn, city_id, public_key, sealed, now):
            await rotation.publish(conn, city_id, Chain(public_key), now)
            made += 1
    return made


async def keep_clearing(pool: Pool, vault: Vault, clock: Clock) -> None:
    """The worker's task: keys for new cities, and questions about what nobody answers."""
    steps: list[Callable[[Conn, Vault, datetime], Awaitable[int]]] = [ensure_keys, ask_again]
    while True:
        done = 0
        for step in steps:
            async with pool.acquire() as conn, conn.transaction():
                done = max(done, await step(conn, vault, clock()))
        if done < QUERIES_AT_ONCE:
            await asyncio.sleep(LOOK_EVERY_S)
