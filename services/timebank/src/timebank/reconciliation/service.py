"""What comparing two cities' books does: one transaction each, under the agreement's lock.

Every few minutes each city asks every peer how its side moved since it last said so, and compares
the answer with its own side. What does not fit is an alarm: raised once, closed when it is gone.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from prometheus_client import Gauge

from common import outbox
from common.clock import Clock
from common.db import Conn, Pool
from common.ids import new_id
from common.logging import get_logger
from timebank import events
from timebank import store as ledger_store
from timebank.clearing import hearing, keys_store
from timebank.clearing.agreements import store as agreements_store
from timebank.clearing.keys import Vault
from timebank.clearing.messages import (
    Message,
    MovementBody,
    PairAskedBody,
    PairSaidBody,
    WaitingBody,
)
from timebank.clearing.sending import say
from timebank.netting import store as netting_store
from timebank.reconciliation import domain, store
from timebank.reconciliation.domain import Alarm, Key, Movement, Open, Said, Verdict
from timebank.reconciliation.store import Pair, Raised

MOVEMENTS_MAX = 500
WAITING_MAX = 500
# What of a pair is judged at once: the oldest.
JUDGED_MAX = 1000
PAGES_MAX = 20
PAIRS_AT_ONCE = 100
LOOK_EVERY_S = 5.0

IN_FLIGHT = Gauge(
    "timebank_pair_in_flight_minutes",
    "By how much the positions of two cities differ because of what is in flight",
    ["city", "peer"],
)
UNEXPLAINED = Gauge(
    "timebank_pair_unexplained_minutes",
    "By how much the positions of two cities differ and nothing explains it",
    ["city", "peer"],
)
ALARMS = Gauge("timebank_pair_alarms", "What is wrong between two cities", ["city", "peer"])

log = get_logger(__name__)


# ── Asking ──────────────────────────────────────────────────────────────────────────────────────


async def ask(
    conn: Conn,
    vault: Vault,
    city_id: str,
    peer: str,
    *,
    every: timedelta,
    overdue: timedelta,
    now: datetime,
) -> None:
    """Compare what is known of a pair, and ask the peer what is new on its side."""
    if await agreements_store.lock_bond(conn, city_id, peer) is None:
        return
    pair = await store.lock_pair(conn, city_id, peer, now)
    pair, all_read = await read_ours(conn, pair)
    # A question that was asked and not answered is lost, or late: this one takes its place.
    pair = replace(
        pair,
        question_id=new_id(),
        question_version=pair.story.our_version,
        ask_at=now + every if all_read else now,
        checked_at=now,
        unanswered_since=pair.unanswered_since or now,
    )
    await store.save_pair(conn, pair)
    await judge(conn, pair, overdue=overdue, now=now)
    await put_question(conn, vault, pair, now)


async def put_question(conn: Conn, vault: Vault, pair: Pair, now: datetime) -> None:
    if pair.question_id is None:
        return
    body = PairAskedBody(
        kind="pair.asked", question_id=pair.question_id, since=pair.story.their_version
    )
    await say(conn, vault, pair.city_id, pair.peer_city_id, body, now, keep=False)


async def read_ours(conn: Conn, pair: Pair) -> tuple[Pair, bool]:
    """Take our own new postings in; whether these were all."""
    for _ in range(PAGES_MAX):
        since = pair.story.our_version
        found = await store.list_movements(
            conn, pair.city_id, pair.peer_city_id, since, MOVEMENTS_MAX
        )
        pair = await take_in(conn, pair, "ours", found)
        if len(found) < MOVEMENTS_MAX:
            return pair, True
    return pair, False


async def take_in(
    conn: Conn,
    pair: Pair,
    side: domain.Side,
    movements: Sequence[tuple[Movement, datetime]],
) -> Pair:
    """Match postings of one side with what is open of the other. Raises ValueError for a gap."""
    story = pair.story.told(side, [movement for movement, _ in movements])
    known = await store.find_open(conn, pair, [movement.id for movement, _ in movements])
    added, removed = domain.match(known, side, movements)
    await store.save_open(conn, pair, added, removed)
    return replace(pair, story=story)


# ── Hearing ─────────────────────────────────────────────────────────────────────────────────────


async def hear(
    conn: Conn, vault: Vault, message: Message, now: datetime, *, overdue: timedelta
) -> None:
    """A question of another city, or its answer to ours; and what others say to each other, which
    is where circles of debts are found."""
    said = message.body.kind == "pair.said"
    if said:
        await overhear(conn, message, now)
    if not await ledger_store.has_book(conn, message.to_city):
        return
    if not await hearing.is_believed(conn, message, now):
        log.warning("pair_message_not_believed", peer=message.from_city)
        return
    if await agreements_store.lock_bond(conn, message.to_city, message.from_city) is None:
        return
    if said:
        await hear_statement(conn, vault, message, overdue=overdue, now=now)
    else:
        await tell(conn, vault, message, now)


async def overhear(conn: Conn, message: Message, now: datetime) -> None:
    if await ledger_store.has_book(conn, message.from_city):
        return
    # A city may say what it likes, of cities that there are: not of as many as it can name.
    if await keys_store.peer_chain(conn, message.to_city) is None and not (
        await ledger_store.has_book(conn, message.to_city)
    ):
        return
    chain = await keys_store.peer_chain(conn, message.from_city)
    if chain is None or not any(
        map(message.is_from, chain.believed(now, message.envelope.sent_at))
    ):
        return
    await netting_store.save_said(
        conn,
        message.from_city,
        message.to_city,
        version=message.body.version,
        minutes=message.body.position_minutes,
        now=now,
    )


async def tell(conn: Conn, vault: Vault, message: Message, now: datetime) -> None:
    """Answer a question: our position, how it came about, and what we wait for.

    The agreement's lock is held, so that all of it is of one instant.
    """
    city_id, peer, since = message.to_city, message.from_city, message.body.since
    account = await ledger_store.find_account_of(conn, city_id, "clearing", None, peer)
    in_transit = await ledger_store.find_account_of(conn, city_id, "in_transit", None, peer)
    if account is None or in_transit is None:
        return
    movements = await store.list_movements(conn, city_id, peer, since, MOVEMENTS_MAX)
    waiting = await store.list_waiting(conn, city_id, peer, WAITING_MAX + 1)
    body = PairSaidBody(
        kind="pair.said",
        question_id=message.body.question_id,
        since=since,
        version=account.version,
        position_minutes=account.balance_minutes,
        in_transit_minutes=in_transit.balance_minutes,
        movements=[
            MovementBody(version=one.version, kind=one.kind, id=one.id, minutes=one.minutes)
            for one, _ in movements
        ],
        complete=since + len(movements) == account.version,
        waiting=[
            WaitingBody.model_validate({"kind": one.kind, "id": one.id, "minutes": one.minutes})
            for one in waiting[:WAITING_MAX]
        ],
        waiting_complete=len(waiting) <= WAITING_MAX,
        log_size=await store.log_size(conn, city_id),
    )
    await say(conn, vault, city_id, peer, body, now, keep=False)


async def hear_statement(
    conn: Conn, vault: Vault, message: Message, *, overdue: timedelta, now: datetime
) -> None:
    """Compare what the peer says with our side. Only the answer to our last question counts."""
    body = message.body
    pair = await store.lock_pair(conn, message.to_city, message.from_city, now)
    if pair.question_id != body.question_id or pair.question_id is None:
        return
    if body.since != pair.story.their_version:
        return
    went_back = body.version < pair.story.their_version
    pair, _ = await read_ours(conn, pair)
    movements = [
        (Movement(one.version, one.kind, one.id, one.minutes), now) for one in body.movements
    ]
    try:
        pair = await take_in(conn, pair, "theirs", movements)
    except ValueError as error:
        log.error("pair_statement_wrong", peer=message.from_city, reason=str(error))
        return
    pair = replace(
        pair,
        asked_version=pair.question_version,
        question_id=None,
        checked_at=now,
        said_at=now,
        said=message.raw,
        complete=body.complete and not went_back,
        went_back=went_back,
        unanswered_since=None,
    )
    if not body.complete and not went_back and movements:
        pair = replace(pair, question_id=new_id(), question_version=pair.story.our_version)
    await store.save_pair(conn, pair)
    await judge(conn, pair, overdue=overdue, now=now)
    await put_question(conn, vault, pair, now)


# ── Judging ─────────────────────────────────────────────────────────────────────────────────────


async def verdicts_of(
    conn: Conn, pair: Pair, *, overdue: timedelta, now: datetime
) -> list[tuple[Open, Verdict]]:
    """What is open between two cities, the oldest first, each with what it is."""
    found = await store.list_open(conn, pair.city_id, pair.peer_city_id, JUDGED_MAX)
    known = await store.what_we_know(conn, pair, found)
    by_key: dict[Key, Open] = {one.key: one for one in found}
    said = said_by(pair)
    return [
        (
            one,
            domain.judge(
                one,
                now=now,
                overdue=overdue,
                said=said,
                known=known.get(one.key, "unknown"),
                differs=one.counterpart in by_key,
            ),
        )
        for one in found
    ]


def said_by(pair: Pair) -> Said:
    """What the peer's last statement allows to conclude."""
    if pair.said is None:
        return Said(0, None)
    body = PairSaidBody.model_validate(pair.said["body"])
    waiting = frozenset(one.id for one in body.waiting) if body.waiting_complete else None
    return Said(pair.asked_version, waiting)


async def judge(conn: Conn, pair: Pair, *, overdue: timedelta, now: datetime) -> None:
    """Raise the alarms that there are, and close those that are gone."""
    wanted: list[Alarm] = []
    if pair.unanswered_since is not None and now - pair.unanswered_since >= overdue:
        wanted.append(Alarm("silent", (), 0, 0))
    if pair.went_back:
        wanted.append(Alarm("went_back", (), 0, 0))
    unexplained = 0
    if pair.complete:
        verdicts = await verdicts_of(conn, pair, overdue=overdue, now=now)
        wanted += domain.alarms_of(verdicts)
        position = PairSaidBody.model_validate((pair.said or {})["body"]).position_minutes
        off = position - pair.story.their_minutes
        if off:
            wanted.append(Alarm("position_differs", (), 0, off))
        in_flight = await in_flight_of(conn, pair, verdicts)
        unexplained = pair.story.difference_minutes + off - in_flight
        IN_FLIGHT.labels(pair.city_id, pair.peer_city_id).set(in_flight)
        UNEXPLAINED.labels(pair.city_id, pair.peer_city_id).set(unexplained)
    elif pair.went_back or pair.said is None:
        pass
    else:
        return  # in the middle of a long story: what is open is not told yet
    ALARMS.labels(pair.city_id, pair.peer_city_id).set(len(wanted))
    await keep_alarms(conn, pair, wanted, now)


FLYING: frozenset[Verdict] = frozenset({"in_flight", "late"})


async def in_flight_of(conn: Conn, pair: Pair, verdicts: Sequence[tuple[Open, Verdict]]) -> int:
    """Minutes in flight: what is judged so, and what is too new to be among the oldest."""
    wrong = sum(one.minutes for one, verdict in verdicts if verdict not in FLYING)
    judged = sum(one.minutes for one, _ in verdicts)
    is_all = len(verdicts) < JUDGED_MAX
    return (judged if is_all else await store.sum_open(conn, pair)) - wrong


async def keep_alarms(conn: Conn, pair: Pair, wanted: Sequence[Alarm], now: datetime) -> None:
    """Each kind once while it lasts; told when it begins, concerns others, and ends."""
    open_now = await store.lock_alarms(conn, pair.city_id, pair.peer_city_id)
    for alarm in wanted:
        raised = open_now.get(alarm.kind)
        if raised is None:
            raised = await store.raise_alarm(conn, new_id(), pair, alarm, now)
            log.error(
                "pair_alarm",
                city=pair.city_id,
                peer=pair.peer_city_id,
                kind=alarm.kind,
                count=alarm.count,
                minutes=alarm.minutes,
                ids=[str(each) for each in alarm.ids],
            )
        elif (raised.ids, raised.count, raised.minutes) != (
            alarm.ids,
            alarm.count,
            alarm.minutes,
        ):
            raised = replace(
                raised,
                ids=alarm.ids,
                count=alarm.count,
                minutes=alarm.minutes,
                version=raised.version + 1,
            )
            await store.save_alarm(conn, raised)
        else:
            continue
        await publish(conn, raised, now)
    for kind, raised in open_now.items():
        if kind not in {alarm.kind for alarm in wanted}:
            closed = replace(raised, version=raised.version + 1, closed_at=now)
            await store.save_alarm(conn, closed)
            await publish(conn, closed, now)


async def publish(conn: Conn, raised: Raised, now: datetime) -> None:
    await outbox.add(
        conn,
        topic=events.BOOKS,
        key=raised.city_id,
        type=events.PAIR_ALARM_CHANGED,
        data=events.pair_alarm_changed(
            alarm_id=raised.alarm_id,
            version=raised.version,
            city_id=raised.city_id,
            peer_city_id=raised.peer_city_id,
            kind=raised.kind,
            ids=raised.ids,
            count=raised.count,
            minutes=raised.minutes,
            raised_at=raised.raised_at,
            closed_at=raised.closed_at,
        ),
        now=now,
    )


# ── The worker ──────────────────────────────────────────────────────────────────────────────────


async def ask_where_due(
    pool: Pool, vault: Vault, clock: Clock, *, every: timedelta, overdue: timedelta
) -> int:
    """One transaction per pair; how many were well. One that cannot be compared stays due, and
    keeps no other waiting."""
    done = 0
    async with pool.acquire() as conn:
        for city_id, peer in await store.list_due(conn, clock(), PAIRS_AT_ONCE):
            try:
                async with conn.transaction():
                    await ask(conn, vault, city_id, peer, every=every, overdue=overdue, now=clock())
                done += 1
            except (LookupError, RuntimeError, ValueError) as error:
                log.error(
                    "pair_stuck",
                    city=city_id,
                    peer=peer,
                    error=f"{type(error).__name__}: {error}",
                )
    return done


async def keep_reconciling(
    pool: Pool, vault: Vault, clock: Clock, every_minutes: int, overdue_minutes: int
) -> None:
    """The worker's task: compare every pair every so often; 0 minutes: never."""
    every, overdue = timedelta(minutes=every_minutes), timedelta(minutes=overdue_minutes)
    while every_minutes > 0:
        done = await ask_where_due(pool, vault, clock, every=every, overdue=overdue)
        if done < PAIRS_AT_ONCE:
            await asyncio.sleep(LOOK_EVERY_S)
    await asyncio.Event().wait()
