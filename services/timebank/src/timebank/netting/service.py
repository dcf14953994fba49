"""What netting does: one transaction each, in which state, posting and the signed message that
tells of them stand or fall together.

Locks are taken in one order: the city's agreements by peer, then the netting, then accounts.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from common.clock import Clock
from common.db import Conn, Pool
from common.ids import new_id
from common.logging import get_logger
from timebank import store as ledger_store
from timebank.clearing import hearing
from timebank.clearing import store as clearing_store
from timebank.clearing.agreements import store as agreements_store
from timebank.clearing.agreements.store import Bond
from timebank.clearing.keys import Vault
from timebank.clearing.messages import (
    Message,
    MoveBody,
    PlanAnswerBody,
    PlanBody,
    PlanDecisionBody,
    PlanPassedBody,
    WrongMessage,
    read_message,
)
from timebank.clearing.sending import say
from timebank.clearing.service import post_for_sure
from timebank.domain import Account, Actor, Rejected
from timebank.netting import domain, planning, store
from timebank.netting.domain import Netting, Plan, Room
from timebank.netting.planning import Move
from timebank.netting.store import Kept

LOOK_EVERY_S = 1.0
DUE_AT_ONCE = 50
# A worker that just started lets the others say where they stand first.
PLAN_FIRST_AFTER = timedelta(minutes=2)
BY_ITSELF = "netting"
NOT_FOUND = Rejected("not_found", "There is no such netting.")

log = get_logger(__name__)


# ── Proposing ───────────────────────────────────────────────────────────────────────────────────


async def find_moves(conn: Conn, among: Collection[str] | None) -> tuple[Move, ...]:
    """What could be netted now, besides what is proposed already."""
    debts = planning.debts_of(await store.list_sides(conn))
    limits = {frozenset((debt.debtor, debt.creditor)): debt.minutes for debt in debts}
    for plan in await store.list_open_plans(conn):
        for move in plan.moves:
            pair = frozenset((move.debtor, move.creditor))
            limits[pair] = max(0, limits.get(pair, 0) - move.minutes)
    return await asyncio.to_thread(planning.plan_moves, debts, limits, among=among)


async def propose(
    conn: Conn,
    vault: Vault,
    *,
    by: str,
    netting_id: UUID,
    decider: str | None,
    among: Collection[str] | None,
    expires_at: datetime,
    now: datetime,
) -> Kept | Rejected:
    """Propose what could be netted to every city in it. `decider`: a city of ours; None: the first
    of those that take part."""
    if not domain.AGREE_MIN <= expires_at - now <= domain.AGREE_MAX:
        return Rejected(
            "invalid_deadline", "Agreeing takes 1 minute to 30 days.", field="body.expires_at"
        )
    moves = await find_moves(conn, among)
    cities = sorted({city for move in moves for city in (move.debtor, move.creditor)})
    ours = [city for city in await store.books_of(conn, cities) if decider in (None, city)]
    if not ours:
        return Rejected("nothing_to_net", "No debts go round that a city of ours is in.")
    plan = Plan(netting_id, ours[0], moves, expires_at)
    domain.check_plan(plan)
    kept = Kept(Netting(plan, plan.decider, "proposed"), by, now)
    if not await store.add(conn, kept):
        return Rejected(
            "netting_id_reused", "Another netting has this netting_id.", field="body.netting_id"
        )
    for city_id in plan.cities:
        if city_id != plan.decider:
            await say(conn, vault, plan.decider, city_id, told(plan), now)
    return kept


def told(plan: Plan) -> PlanBody:
    moves = [
        MoveBody(
            debtor=move.debtor,
            creditor=move.creditor,
            minutes=move.minutes,
            owed_minutes=move.owed_minutes,
        )
        for move in plan.moves
    ]
    return PlanBody(
        kind="netting.proposed",
        netting_id=plan.netting_id,
        moves=moves,
        expires_at=plan.expires_at,
    )


# ── One netting, locked ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Held:
    """A netting of one city with all that it may change, locked."""

    kept: Kept
    bonds: Mapping[str, Bond]
    accounts: Mapping[str, Account]

    @property
    def netting(self) -> Netting:
        return self.kept.netting

    @property
    def plan(self) -> Plan:
        return self.kept.netting.plan

    @property
    def city_id(self) -> str:
        return self.kept.netting.city_id

    def rooms(self, in_transit: Mapping[str, int]) -> dict[str, Room]:
        rooms = {}
        for peer, bond in self.bonds.items():
            if peer in self.accounts:
                position = self.accounts[peer].balance_minutes
                used = position + in_transit.get(peer, 0) + bond.netting_up_minutes
                rooms[peer] = Room(
                    in_force=bond.agreement.state in ("active", "suspended"),
                    position_minutes=position,
                    up_minutes=bond.netting_up_minutes,
                    down_minutes=bond.netting_down_minutes,
                    out_left_minutes=bond.agreement.limit_out_minutes - used,
                )
        return rooms


async def hold(conn: Conn, city_id: str, netting_id: UUID) -> Held | None:
    """Lock a netting and what it moves; None when the city knows none of this id."""
    known = await store.find(conn, city_id, netting_id)
    if known is None:
        return None
    bonds, ids = {}, {}
    for peer in sorted(known.netting.plan.changes_of(city_id)):
        bond = await agreements_store.lock_bond(conn, city_id, peer)
        account = await ledger_store.find_account_of(conn, city_id, "clearing", None, peer)
        if bond is not None and account is not None:
            bonds[peer], ids[peer] = bond, account.id
    kept = await store.find(conn, city_id, netting_id, lock=True)
    accounts = await ledger_store.lock_accounts(conn, ids.values())
    if kept is None:
        return None
    return Held(kept, bonds, {peer: accounts[each] for peer, each in ids.items()})


async def change(conn: Conn, held: Held, after: Kept) -> Held:
    """Write what became of a netting, and what it sets aside in the limits."""
    was, now_is = held.netting.state == "agreed", after.netting.state == "agreed"
    if was != now_is:
        sign = 1 if now_is else -1
        for peer, minutes in held.plan.changes_of(held.city_id).items():
            await agreements_store.set_aside(
                conn,
                held.city_id,
                peer,
                up_minutes=sign * max(minutes, 0),
                down_minutes=sign * max(-minutes, 0),
            )
    await store.save(conn, after)
    return replace(held, kept=after)


# ── Stewards ────────────────────────────────────────────────────────────────────────────────────


async def answer(
    conn: Conn,
    vault: Vault,
    actor: Actor,
    city_id: str,
    netting_id: UUID,
    *,
    agrees: bool,
    now: datetime,
) -> Kept | Rejected:
    """A steward agrees to a netting for their city, or refuses it."""
    if not actor.is_steward_of(city_id):
        if actor.may_know_of(city_id):
            return Rejected("forbidden", "Only a steward of the city agrees for it.")
        return NOT_FOUND
    held = await hold(conn, city_id, netting_id)
    if held is None:
        return NOT_FOUND
    if agrees:
        in_transit = await in_transit_of(conn, held)
        decided = domain.agree(held.netting, held.rooms(in_transit), now)
    else:
        decided = domain.refuse(held.netting)
    if isinstance(decided, Rejected):
        return decided
    if decided == held.netting:
        return held.kept
    after = replace(held.kept, netting=decided, answered_by=actor.id, answered_at=now)
    held = await change(conn, held, after)
    if decided.decides:
        held = await decide(conn, vault, held, now)
    else:
        await say(conn, vault, city_id, decided.plan.decider, said(decided), now)
    return held.kept


def said(netting: Netting) -> PlanAnswerBody:
    """The answer that a city gives, as often as it is to be said."""
    return PlanAnswerBody(
        kind="netting.refused" if netting.state == "refused" else "netting.agreed",
        netting_id=netting.plan.netting_id,
        digest=netting.plan.digest(),
    )


async def in_transit_of(conn: Conn, held: Held) -> dict[str, int]:
    """What is on its way to each peer; it changes under the agreement's lock, which is held."""
    found = {}
    for peer in held.accounts:
        account = await ledger_store.find_account_of(conn, held.city_id, "in_transit", None, peer)
        found[peer] = account.balance_minutes if account else 0
    return found


# ── Deciding and posting ────────────────────────────────────────────────────────────────────────


async def decide(conn: Conn, vault: Vault, held: Held, now: datetime) -> Held:
    """Decide a plan of ours if that is possible now, and tell every city in it."""
    plan = held.plan
    answers = await store.list_answers(conn, held.city_id, plan.netting_id)
    decided = domain.decide(held.netting, {each.from_city: each.agreed for each in answers}, now)
    if decided is None:
        return held
    committed = decided == "commit"
    body = PlanDecisionBody(
        kind="netting.decided",
        netting_id=plan.netting_id,
        digest=plan.digest(),
        committed=committed,
        agreements=[each.message for each in answers] if committed else [],
    )
    messages = [
        await say(conn, vault, held.city_id, city_id, body, now)
        for city_id in plan.cities
        if city_id != held.city_id
    ]
    return await conclude(conn, held, committed, messages[0], now)


async def conclude(
    conn: Conn, held: Held, committed: bool, decision: Message, now: datetime
) -> Held:
    """Do what was decided: post it, or set nothing aside any more."""
    meaning = domain.conclude(held.netting, committed=committed)
    if meaning == "nothing":
        return held
    if meaning == "contradiction":
        log.error(
            "netting_contradiction", netting_id=str(held.plan.netting_id), city_id=held.city_id
        )
        return held
    transfer_id = None
    if meaning == "post":
        ids = {peer: account.id for peer, account in held.accounts.items()}
        legs = domain.legs_of(held.netting, ids)
        posted = await post_for_sure(conn, held.city_id, "netting", legs, now)
        transfer_id = posted.id
    after = replace(
        held.kept,
        netting=domain.concluded(held.netting, meaning),
        decision=decision.raw,
        decided_at=now,
        transfer_id=transfer_id,
    )
    return await change(conn, held, after)


# ── Messages ────────────────────────────────────────────────────────────────────────────────────


async def hear(conn: Conn, vault: Vault, message: Message, now: datetime) -> None:
    """What a message about netting brings about. Heard again, the same and nothing more: only what
    is news is kept, since a city that waits repeats itself for as long as it waits."""
    body = message.body
    if not await ledger_store.has_book(conn, message.to_city):
        return
    if not await hearing.is_believed(conn, message, now):
        log.warning("netting_message_not_believed", kind=body.kind, peer=message.from_city)
        return
    if body.kind == "netting.proposed":
        is_news = await hear_plan(conn, vault, message, now)
    elif body.kind == "netting.decided":
        is_news = await hear_decision(conn, message.to_city, message, now)
    elif body.kind == "netting.passed":
        is_news = await hear_passed(conn, message, now)
    else:
        is_news = await hear_answer(conn, vault, message, now)
    if is_news:
        await clearing_store.keep_message(conn, message.to_city, message, sent=False, now=now)


async def hear_plan(conn: Conn, vault: Vault, message: Message, now: datetime) -> bool:
    """Keep a plan, for the stewards to look at. Whether it was news."""
    body, city_id = message.body, message.to_city
    plan = Plan(
        netting_id=body.netting_id,
        decider=message.from_city,
        moves=tuple(Move(**move.model_dump()) for move in body.moves),
        expires_at=body.expires_at,
    )
    try:
        domain.check_plan(plan)
    except domain.WrongPlan as error:
        log.warning("netting_plan_wrong", peer=message.from_city, reason=str(error))
        return False
    known = await store.find(conn, city_id, plan.netting_id)
    if known is not None:
        if known.netting.plan.digest() != plan.digest():
            log.error("netting_plan_changed", netting_id=str(plan.netting_id), city_id=city_id)
        elif known.netting.state == "refused":
            await say(conn, vault, city_id, plan.decider, said(known.netting), now, keep=False)
        return False
    # From a city with which there is no agreement, too: but not without end.
    if city_id not in plan.cities or not domain.may_wait(plan, now):
        return False
    if await store.count_open(conn, city_id, plan.decider) >= domain.OPEN_MAX:
        log.warning("netting_plans_too_many", peer=plan.decider, city_id=city_id)
        return False
    return await store.add(conn, Kept(Netting(plan, city_id, "proposed"), plan.decider, now))


async def hear_answer(conn: Conn, vault: Vault, message: Message, now: datetime) -> bool:
    """Another city agreed, or did not: keep it; whoever knows the decision says it. Whether it was
    news."""
    body, city_id, sender = message.body, message.to_city, message.from_city
    held = await hold(conn, city_id, body.netting_id)
    if held is None or body.digest != held.plan.digest() or sender not in held.plan.cities:
        return False
    if held.kept.decision is not None:
        reply: PlanDecisionBody | PlanPassedBody
        if held.netting.decides:
            reply = PlanDecisionBody.model_validate(held.kept.decision["body"])
        else:
            reply = PlanPassedBody(
                kind="netting.passed", netting_id=body.netting_id, decision=held.kept.decision
            )
        # The decision is kept already, by both who say it and who heard it.
        await say(conn, vault, city_id, sender, reply, now, keep=False)
        return False
    if not held.netting.decides or sender == city_id:
        return False
    added = await store.add_answer(
        conn,
        city_id,
        body.netting_id,
        sender,
        agreed=body.kind == "netting.agreed",
        message=message.raw,
        now=now,
    )
    await decide(conn, vault, held, now)
    return added


async def hear_passed(conn: Conn, message: Message, now: datetime) -> bool:
    """A decision that another city than the decider brings; the decider has signed it. Whether it
    was news."""
    try:
        decision = read_message(message.body.decision)
    except WrongMessage:
        return False
    if decision.body.kind != "netting.decided":
        return False
    if not await hearing.was_signed(conn, message.to_city, decision):
        log.warning("netting_decision_not_believed", peer=message.from_city)
        return False
    return await hear_decision(conn, message.to_city, decision, now)


async def hear_decision(conn: Conn, city_id: str, decision: Message, now: datetime) -> bool:
    """Do what the decider has decided, if all agreements are there to what was agreed here. Whether
    it was news; so is what contradicts what is known, and proves that somebody lied."""
    body = decision.body
    held = await hold(conn, city_id, body.netting_id)
    if held is None or body.digest != held.plan.digest():
        return False
    if decision.from_city != held.plan.decider or held.netting.decides:
        return False
    if body.committed and not await all_signed(conn, held, body):
        log.error("netting_agreement_missing", netting_id=str(body.netting_id), city_id=city_id)
        return False
    is_news = domain.conclude(held.netting, committed=body.committed) != "nothing"
    await conclude(conn, held, body.committed, decision, now)
    return is_news


async def all_signed(conn: Conn, held: Held, body: PlanDecisionBody) -> bool:
    """Whether every other city signed that it agrees to the plan; the decider's signature is that
    of the decision."""
    signed = set()
    for raw in body.agreements:
        try:
            message = read_message(raw)
        except WrongMessage:
            continue
        agreed = message.body.kind == "netting.agreed" and message.body.digest == body.digest
        if agreed and await hearing.was_signed(conn, held.city_id, message):
            signed.add(message.from_city)
    # Our own is what we keep.
    return set(held.plan.cities) <= signed | {held.plan.decider, held.city_id}


# ── The worker ──────────────────────────────────────────────────────────────────────────────────


async def speak_again(
    conn: Conn, vault: Vault, city_id: str, netting_id: UUID, now: datetime
) -> None:
    """Say again what nobody answered, and end what was not agreed in time. The first time was kept,
    and is what counts."""
    held = await hold(conn, city_id, netting_id)
    if held is None:
        return
    lapsed = domain.lapse(held.netting, now)
    if lapsed != held.netting:
        await change(conn, held, replace(held.kept, netting=lapsed))
        return
    if held.netting.decides:
        held = await decide(conn, vault, held, now)
    due = domain.speaks_again_at(held.netting, held.kept.proposed_at)
    if due is None or due > now:
        return
    plan = held.plan
    if held.netting.decides:
        answers = await store.list_answers(conn, city_id, netting_id)
        silent = set(plan.cities) - {city_id} - {each.from_city for each in answers}
        for peer in sorted(silent):
            await say(conn, vault, city_id, peer, told(plan), now, keep=False)
    else:
        others = set(plan.cities) if held.netting.asks >= domain.ASKS_BEFORE_OTHERS else set()
        for peer in sorted((others | {plan.decider}) - {city_id}):
            await say(conn, vault, city_id, peer, said(held.netting), now, keep=False)
    again = domain.spoken_again(held.netting, now)
    await change(conn, held, replace(held.kept, netting=again))


async def speak_where_due(pool: Pool, vault: Vault, now: datetime) -> int:
    """One transaction per netting; how many were well. One that cannot be dealt with stays due, and
    keeps no other waiting."""
    done = 0
    async with pool.acquire() as conn:
        for city_id, netting_id in await store.list_due(conn, now, DUE_AT_ONCE):
            try:
                async with conn.transaction():
                    await speak_again(conn, vault, city_id, netting_id, now)
                done += 1
            except (LookupError, RuntimeError, ValueError) as error:
                log.error(
                    "netting_stuck",
                    city=city_id,
                    netting_id=str(netting_id),
                    error=f"{type(error).__name__}: {error}",
                )
    return done


async def propose_by_itself(
    conn: Conn, vault: Vault, serves: Callable[[str], bool], now: datetime
) -> Kept | None:
    """Propose what can be netted, if the first of its cities is ours: of several time banks that
    look at the same debts, one proposes."""
    moves = await find_moves(conn, None)
    cities = sorted({city for move in moves for city in (move.debtor, move.creditor)})
    if not cities or not serves(cities[0]):
        return None
    proposed = await propose(
        conn,
        vault,
        by=BY_ITSELF,
        netting_id=new_id(),
        decider=cities[0],
        among=None,
        expires_at=now + domain.AGREE_DEFAULT,
        now=now,
    )
    return None if isinstance(proposed, Rejected) else proposed


async def keep_netting(
    pool: Pool, vault: Vault, clock: Clock, serves: Callable[[str], bool], every_hours: int
) -> None:
    """The worker's task: says again what was not answered; every so often looks for debts that go
    round, and proposes to net them (0 hours: never)."""
    plan_at = clock() + PLAN_FIRST_AFTER
    while True:
        now = clock()
        done = await speak_where_due(pool, vault, now)
        if every_hours and now >= plan_at:
            plan_at = now + timedelta(hours=every_hours)
            async with pool.acquire() as conn, conn.transaction():
                await propose_by_itself(conn, vault, serves, now)
        if done < DUE_AT_ONCE:
            await asyncio.sleep(LOOK_EVERY_S)
