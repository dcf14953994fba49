"""What must be true once all is healed and quiet. Each function returns what is wrong, in words."""

import asyncio
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from shards_history import History, Wish
from shards_snapshots import look, look_at_all
from shards_world import Shard, World

from common import kafka
from common.clock import utc_now
from common.events import from_message
from copass_verify.checkpoints import parse_checkpoint
from copass_verify.merkle import Frontier
from copass_verify.notes import split_note
from timebank.app import topics_of
from timebank.log.bundle import write_bundle
from timebank.verify import verify_books

IDLE_MS = 1500
SIGNED_WITHIN = timedelta(seconds=10)


UNFINISHED = {
    "transfers without an answer": "clearing_out WHERE state = 'sent'",
    "events not published": "outbox WHERE published_at IS NULL",
    "accounts with postings in no entry of the log": (
        "account LEFT JOIN log_account l USING (account_id)"
        " WHERE account.version > coalesce(l.version, 0)"
    ),
    "logs with entries in no checkpoint": (
        "log_head h WHERE size > coalesce((SELECT max(size) FROM log_checkpoint c"
        " WHERE c.city_id = h.city_id), 0)"
    ),
    "logs whose last checkpoint nobody cosigned": (
        "log_head h WHERE NOT EXISTS (SELECT FROM log_cosignature c"
        " WHERE c.city_id = h.city_id AND c.size = h.size)"
    ),
}


# ── Quiet ───────────────────────────────────────────────────────────────────────────────────────


async def unfinished(world: World, history: History) -> list[str]:
    """What is still on its way. Empty in the end, however long the outage was."""
    waiting = []
    for shard in world.shards:
        connection = await shard.connect()
        try:
            for what, question in UNFINISHED.items():
                count = await connection.fetchval(f"SELECT count(*) FROM {question}")
                if count:
                    waiting.append(f"{shard.name}: {count} {what}")
        finally:
            await connection.close()
    return waiting + [
        f"{wanted.transfer_id} is not taken back"
        for wanted in history.take_backs
        if wanted.agreed and not await is_taken_back(world, wanted.transfer_id, wanted.to_city)
    ]


async def is_taken_back(world: World, transfer_id: UUID, city: str) -> bool:
    """Whether the city that received has sent it back, or knows why it cannot."""
    connection = await world.shard_of(city).connect()
    try:
        done = await connection.fetchval(
            "SELECT reversal_id IS NOT NULL OR problem IS NOT NULL FROM clearing_reversal"
            " WHERE city_id = $1 AND transfer_id = $2",
            city,
            transfer_id,
        )
    finally:
        await connection.close()
    return done is True


async def settle(world: World, history: History, within_s: float) -> list[str]:
    """Wait until nothing is on its way; what still is, after so many seconds."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while (waiting := await unfinished(world, history)) and loop.time() < until:
        await asyncio.sleep(0.5)
    return waiting


# ── Transfers ───────────────────────────────────────────────────────────────────────────────────


async def not_as_said(world: World, history: History) -> list[str]:
    """Acknowledged: there once. Refused: not there. Unknown: there once at most. And nothing is
    there that nobody wanted."""
    wrong = []
    found: Counter[UUID] = Counter()
    ids: dict[UUID, set[UUID]] = {}
    for shard in world.shards:
        for memo, transfer_id in await transfers_of(shard):
            found[memo] += 1
            ids.setdefault(memo, set()).add(transfer_id)
    known = {wish.id for wish in history.wishes}
    wrong += [f"nobody asked for {memo}" for memo in found if memo not in known]
    for wish in history.wishes:
        count = found[wish.id]
        if wish.said == "ok" and (count != 1 or ids[wish.id] != {wish.transfer_id}):
            wrong.append(f"acknowledged, and there {count} times: {wish}")
        elif wish.said == "fail" and count:
            wrong.append(f"refused, and there: {wish}")
        elif count > 1:
            wrong.append(f"unknown, and there {count} times: {wish}")
    return wrong


async def transfers_of(shard: Shard) -> list[tuple[UUID, UUID]]:
    """Each transfer that was asked for, by its memo, which is the wish."""
    connection = await shard.connect()
    try:
        within = await connection.fetch(
            "SELECT memo, transfer_id FROM transfer JOIN transfer_memo USING (transfer_id)"
            " WHERE kind = 'transfer'"
        )
        between = await connection.fetch(
            "SELECT memo, transfer_id FROM clearing_out WHERE reverses IS NULL"
        )
        stray = await connection.fetchval(
            "SELECT count(*) FROM transfer WHERE kind = 'transfer' AND transfer_id NOT IN"
            " (SELECT transfer_id FROM transfer_memo)"
        )
    finally:
        await connection.close()
    assert stray == 0
    return [(UUID(row["memo"]), row["transfer_id"]) for row in (*within, *between)]


async def not_at_rest(world: World) -> list[str]:
    """Between cities: what was accepted is settled, what was refused came home, and the pairs sum
    to zero. Within each: the books, posting by posting."""
    wrong = await look_at_all(world)
    accounts: dict[tuple[str, str, str], int] = {}
    for shard in world.shards:
        accounts |= (await look(shard)).accounts
        for report in await verify_books(shard.dsn):
            wrong += [f"{report.city_id}: {each}" for each in report.wrong]
    for (city, peer, kind), minutes in accounts.items():
        if kind == "in_transit" and minutes:
            wrong.append(f"{minutes} minutes are on their way from {city} to {peer}")
        if kind == "clearing" and minutes + accounts[peer, city, kind]:
            wrong.append(f"{city} and {peer} do not agree")
    return wrong


async def not_in_the_right_hands(world: World, history: History) -> list[str]:
    """Each member has what they were given, less what they gave; what came back came to the payer.

    Reckoned from what people asked for and what became of it, and not from the postings.
    """
    expected: Counter[UUID] = Counter()
    balances: dict[UUID, int] = {}
    done = {memo for shard in world.shards for memo, _ in await transfers_of(shard)}
    for wish in history.wishes:
        if not wish.crosses and wish.id in done:
            expected[UUID(wish.body["from_account"])] -= wish.body["minutes"]
            expected[UUID(wish.body["to_account"])] += wish.body["minutes"]
    for shard in world.shards:
        connection = await shard.connect()
        try:
            for row in await connection.fetch(
                "SELECT payer_account, minutes FROM clearing_out WHERE state <> 'returned'"
            ):
                expected[row["payer_account"]] -= row["minutes"]
            for row in await connection.fetch(
                "SELECT coalesce(o.payer_account, a.account_id) AS account_id, i.minutes"
                " FROM clearing_in i LEFT JOIN account a"
                "  ON a.owner_id = i.payee AND a.kind = 'member' AND a.city_id = i.city_id"
                " LEFT JOIN clearing_out o ON o.city_id = i.city_id AND o.transfer_id = i.reverses"
                " WHERE i.accepted"
            ):
                expected[row["account_id"]] += row["minutes"]
            rows = await connection.fetch(
                "SELECT account_id, balance_minutes FROM account"
                " WHERE kind NOT IN ('in_transit', 'clearing')"
            )
            balances |= {row["account_id"]: row["balance_minutes"] for row in rows}
        finally:
            await connection.close()
    return [
        f"account {each} stands at {minutes}, and should at {expected[each]}"
        for each, minutes in balances.items()
        if minutes != expected[each]
    ]


# ── Events ──────────────────────────────────────────────────────────────────────────────────────


async def not_published(world: World) -> list[str]:
    """Published is what was committed: each fact, the newest state of each key, and nothing else.
    Nothing became a dead letter."""
    topics, told = await read_topics(world)
    wrong = []
    committed: set[UUID] = set()
    for shard in world.shards:
        connection = await shard.connect()
        try:
            rows = await connection.fetch(
                "SELECT event_id, topic, type, NOT compacted OR id = max(id)"
                " OVER (PARTITION BY topic, key) AS wanted FROM outbox"
            )
            buried = await connection.fetch("SELECT consumer, topic, error FROM dead_letter")
        finally:
            await connection.close()
        committed |= {row["event_id"] for row in rows}
        wrong += [
            f"{shard.name}: committed, and never published: {row['type']} {row['event_id']}"
            for row in rows
            if row["wanted"] and row["topic"] in topics and row["event_id"] not in told
        ]
        wrong += [f"{shard.name}: a dead letter: {tuple(row)}" for row in buried]
    strangers = told - committed
    if strangers:
        wrong.append(f"published, and never committed: {strangers}")
    return wrong


async def read_topics(world: World) -> tuple[list[str], set[UUID]]:
    """The topics that the time banks share, and the ids of all events on them."""
    settings = world.kafka_settings()
    topics = [topic.name for topic in topics_of(settings) if "dead-letters" not in topic.name]
    consumer = kafka.make_consumer(settings, *topics)
    found: set[UUID] = set()
    await consumer.start()
    try:
        while batches := await consumer.getmany(timeout_ms=IDLE_MS):
            for records in batches.values():
                found |= {from_message(one.value, one.headers).id for one in records}
    finally:
        await kafka.stop(consumer)
    return topics, found


# ── Logs ────────────────────────────────────────────────────────────────────────────────────────


async def not_logged(
    world: World, notes: dict[tuple[str, int], str], history: History, calm: Any
) -> list[str]:
    """Every checkpoint that anybody was shown or cosigned is of the log as it is now; and what was
    acknowledged is in one: within 10 s where `calm` says that nothing was wrong then."""
    wrong = []
    shown = [(city, size, text) for (city, size), text in notes.items()]
    roots: dict[str, list[bytes]] = {}
    for shard in world.shards:
        connection = await shard.connect()
        try:
            for city in shard.cities:
                rows = await connection.fetch(
                    "SELECT leaf_hash FROM log_entry WHERE city_id = $1 ORDER BY index", city
                )
                roots[city] = roots_of([row["leaf_hash"] for row in rows])
            kept = await connection.fetch("SELECT city_id, size, note FROM log_checkpoint")
            seen = await connection.fetch("SELECT city_id, size, note FROM log_seen")
            halted = await connection.fetch(
                "SELECT city_id, halted FROM log_head WHERE halted IS NOT NULL"
            )
            for row in (*kept, *seen):
                text, _ = split_note(row["note"].encode())
                shown.append((row["city_id"], row["size"], text))
            wrong += [f"the log of {row[0]} is halted: {row[1]}" for row in halted]
            wrong += await signed_late(connection, history.of("ok"), calm)
        finally:
            await connection.close()
    for city, size, text in shown:
        checkpoint = parse_checkpoint(text)
        if size >= len(roots[city]) or roots[city][size] != checkpoint.root:
            wrong.append(f"a checkpoint of {city} over {size} entries is of another log")
    return wrong


def roots_of(leaves: list[bytes]) -> list[bytes]:
    """The root over the first n leaves, for every n."""
    frontier = Frontier()
    roots = [frontier.root()]
    for leaf in leaves:
        frontier.append(leaf)
        roots.append(frontier.root())
    return roots


async def signed_late(connection: Any, wishes: list[Wish], calm: Any) -> list[str]:
    """Acknowledged transfers of this shard that no checkpoint has, or one too late."""
    cities = await connection.fetch("SELECT city_id FROM book")
    mine = [wish for wish in wishes if wish.city in {row["city_id"] for row in cities}]
    rows = await connection.fetch(
        "SELECT coalesce(o.transfer_id, e.transfer_id) AS transfer_id,"
        " (SELECT min(signed_at) FROM log_checkpoint c"
        "  WHERE c.city_id = e.city_id AND c.size > e.index) AS signed_at"
        " FROM log_entry e LEFT JOIN clearing_out o ON o.departure_id = e.transfer_id"
    )
    signed = {row["transfer_id"]: row["signed_at"] for row in rows}
    wrong = []
    for wish in mine:
        at = signed.get(wish.transfer_id)
        if at is None:
            wrong.append(f"acknowledged, and in no checkpoint: {wish}")
        elif wish.said_at is not None and calm(wish.said_at) and at > wish.said_at + SIGNED_WITHIN:
            wrong.append(f"signed {at - wish.said_at} after it was acknowledged: {wish}")
    return wrong


async def write_bundles(world: World, folder: Path) -> list[Path]:
    paths = []
    for shard in world.shards:
        paths.append(folder / f"{shard.name}.zip")
        await write_bundle(shard.dsn, [], paths[-1], utc_now())
    return paths


async def verified(paths: list[Path], *options: str) -> tuple[int, str]:
    """What the verifier says, in a process of its own."""
    words = [sys.executable, "-m", "copass_verify", "--quiet", *options, *map(str, paths)]
    done = await asyncio.to_thread(
        subprocess.run, words, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr
