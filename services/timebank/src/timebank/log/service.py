"""What the log does: puts transfers in order after they are posted, signs, proves.

Each step is one transaction under the lock of the log's head, so that indexes have no gaps and a
process that dies anywhere leaves a log that the next one goes on with.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from prometheus_client import Gauge

from common import db, outbox
from common.clock import Clock
from common.db import Conn, Pool
from common.logging import get_logger
from copass_verify.checkpoints import Checkpoint
from copass_verify.merkle import (
    HASH_BYTES,
    Frontier,
    NodeAt,
    WrongProof,
    hash_leaf,
    prove_consistency,
    prove_inclusion,
    root_between,
    root_of,
    verify_consistency,
)
from copass_verify.notes import Signer, format_note, to_verifier
from timebank import events
from timebank.clearing import store as clearing_store
from timebank.clearing.keys import Vault
from timebank.log import cosigning_store, domain, store
from timebank.log.store import LEVEL_KEPT, Entry, Signed

LINES_AT_ONCE = 4000
# So that a city with much to catch up does not keep the others waiting.
STEPS_MAX = 10
POLL_S = 2.0
# How long what was posted may wait, so that looking for it stays cheap beside the posting itself.
PAUSE_S = 0.5
# With the above well within the ten seconds in which an acknowledged transfer is to be signed.
CHECKPOINT_EVERY = timedelta(seconds=5)

LOG_HALTED = Gauge("timebank_log_halted", "Whether a city's log signs nothing any more", ["city"])

log = get_logger(__name__)

T = TypeVar("T")


# ── Sequencing ──────────────────────────────────────────────────────────────────────────────────


async def sequence(conn: Conn, city_id: str, limit: int = LINES_AT_ONCE) -> int:
    """Put the next transfers of a city into its log; how many. 0: all are there."""
    head = await store.lock_head(conn, city_id)
    if head.halted is not None:
        return 0
    lines = await store.list_lines(conn, city_id, limit)
    if not lines:
        return 0
    waiting = await store.list_waiting(conn, city_id, {line.transfer_id for line in lines})
    ordered = domain.put_in_order(waiting, lines)
    names = await name_accounts(conn, {line.account_id for line in lines})
    lines_of: dict[UUID, list[domain.Line]] = {}
    for line in lines:
        lines_of.setdefault(line.transfer_id, []).append(line)
    frontier = Frontier(head.size, head.roots)
    entries, nodes = [], []
    versions: dict[UUID, int] = {}
    for transfer in ordered:
        own = lines_of[transfer.id]
        index = frontier.size
        entry = domain.write_entry(city_id, index, transfer, own, names)
        leaf_hash = hash_leaf(entry)
        entries.append(Entry(index, transfer.id, entry, leaf_hash))
        nodes += [node for node in frontier.append(leaf_hash) if node[0] >= LEVEL_KEPT]
        versions |= {line.account_id: line.account_version for line in own}
    await store.add_entries(conn, city_id, entries, nodes, frontier.size, frontier.roots)
    await store.save_versions(conn, versions)
    return len(entries)


async def name_accounts(conn: Conn, account_ids: set[UUID]) -> dict[UUID, str]:
    """The accounts' names in the log; those that have none get one."""
    names = await store.names_of(conn, account_ids)
    salts = {account_id: os.urandom(domain.SALT_BYTES) for account_id in account_ids - set(names)}
    new = {each: (domain.name_account(each, salt), salt) for each, salt in salts.items()}
    if new:
        await store.add_names(conn, new)
    return names | {account_id: name for account_id, (name, _) in new.items()}


# ── Checkpoints ─────────────────────────────────────────────────────────────────────────────────


async def signer_of(
    conn: Conn, vault: Vault, city_id: str, *, cosigns: bool = False
) -> Signer | None:
    """None before the city has a key."""
    sealed = await clearing_store.find_sealed_key(conn, city_id)
    if sealed is None:
        return None
    key = vault.open(sealed, city_id)
    public_key = key.public_key().public_bytes_raw()
    verifier = to_verifier(domain.origin_of(city_id), public_key, cosigns=cosigns)
    return Signer(verifier, key)


async def sign_checkpoint(conn: Conn, vault: Vault, city_id: str, now: datetime) -> Signed | None:
    """Sign how far the log has come, unless that is signed already.

    Refuses, and logs an alarm, when the log does not begin with what was signed last. None when
    nothing is signed.
    """
    head = await store.lock_head(conn, city_id)
    signer = await signer_of(conn, vault, city_id)
    last = await store.last_checkpoint(conn, city_id)
    if signer is None or head.halted is not None or head.size == (last.size if last else 0):
        return None
    root = Frontier(head.size, head.roots).root()
    if last is not None:
        try:
            if last.size > head.size:
                raise WrongProof(f"{last.size} entries were signed, and {head.size} are there")
            proof = await consistency(conn, city_id, last.size, head.size)
            verify_consistency(last.size, head.size, last.root, root, proof)
        except WrongProof as error:
            log.error("log_not_signed", city=city_id, size=head.size, reason=str(error))
            return None
    text = str(
        Checkpoint(domain.origin_of(city_id), head.size, root, (f"time {int(now.timestamp())}",))
    )
    signed = Signed(head.size, root, format_note(text, [signer.sign(text)]), now)
    await store.add_checkpoint(conn, city_id, signed)
    await tell_checkpoint(conn, city_id, signed, last.size if last else 0, now)
    return signed


async def tell_checkpoint(
    conn: Conn, city_id: str, signed: Signed, last_size: int, now: datetime
) -> None:
    """Publish a checkpoint, with proofs from what was signed before and from what each cosigner
    last saw."""
    sizes = {last_size, *await cosigning_store.cosigned_sizes(conn, city_id)}
    proofs = {
        size: await consistency(conn, city_id, size, signed.size)
        for size in sorted(sizes)
        if 0 < size < signed.size
    }
    await outbox.add(
        conn,
        topic=events.CHECKPOINTS,
        key=city_id,
        type=events.CHECKPOINT_SIGNED,
        data=events.checkpoint_signed(city_id, signed.size, signed.note, proofs),
        now=now,
    )


# ── Proofs ──────────────────────────────────────────────────────────────────────────────────────


async def prove(conn: Conn, city_id: str, prover: Callable[[NodeAt], T]) -> T:
    """Run one of merkle's provers on stored nodes.

    It asks for the same nodes whatever they are, so it runs twice: first to learn which, then with
    all of them, fetched in two queries.
    """
    wanted: list[tuple[int, int]] = []

    def ask(level: int, index: int) -> bytes:
        wanted.append((level, index))
        return bytes(HASH_BYTES)

    prover(ask)
    nodes = await nodes_of(conn, city_id, list(dict.fromkeys(wanted)))
    return prover(lambda level, index: nodes[level, index])


async def nodes_of(
    conn: Conn, city_id: str, wanted: list[tuple[int, int]]
) -> dict[tuple[int, int], bytes]:
    """Nodes (level, index) of perfect subtrees, all within the log."""
    low = [(level, index) for level, index in wanted if level < LEVEL_KEPT]
    high = [(level, index) for level, index in wanted if level >= LEVEL_KEPT]
    ranges = [(index << level, (index + 1) << level) for level, index in low]
    leaves = await store.leaf_hashes(conn, city_id, ranges) if ranges else {}
    nodes = await store.node_hashes(conn, city_id, high) if high else {}
    for (level, index), (begin, end) in zip(low, ranges, strict=True):
        nodes[level, index] = root_of(leaves[leaf] for leaf in range(begin, end))
    return nodes


async def inclusion(conn: Conn, city_id: str, index: int, size: int) -> list[bytes]:
    """That entry `index` is in the log of `size` entries. Raises ValueError beyond them."""
    return await prove(conn, city_id, lambda node_at: prove_inclusion(index, size, node_at))


async def inclusions(
    conn: Conn, city_id: str, indexes: Sequence[int], size: int
) -> list[list[bytes]]:
    """As `inclusion`, for many entries: those beside each other share what has to be read."""

    def prover(node_at: NodeAt) -> list[list[bytes]]:
        return [prove_inclusion(index, size, node_at) for index in indexes]

    return await prove(conn, city_id, prover)


async def consistency(conn: Conn, city_id: str, first: int, second: int) -> list[bytes]:
    """That the log of `second` entries begins with that of `first`. Raises ValueError beyond."""
    return await prove(conn, city_id, lambda node_at: prove_consistency(first, second, node_at))


async def root_at(conn: Conn, city_id: str, size: int) -> bytes:
    """The root over the first `size` entries."""
    (root,) = await prove(conn, city_id, lambda node_at: [root_between(0, size, node_at)])
    return root


# ── The worker ──────────────────────────────────────────────────────────────────────────────────


async def work_once(pool: Pool, vault: Vault | None, now: datetime) -> int:
    """Put what waits into the logs, a bounded part of it, and sign where it is time."""
    done = 0
    async with pool.acquire() as conn:
        for city_id, halted in (await cosigning_store.halted_cities(conn)).items():
            LOG_HALTED.labels(city_id).set(halted)
        for city_id in await store.cities_behind(conn):
            for _ in range(STEPS_MAX):
                async with conn.transaction():
                    added = await sequence(conn, city_id)
                done += added
                if added == 0:
                    break
        if vault is not None:
            for city_id in await store.cities_unsigned(conn, now - CHECKPOINT_EVERY):
                async with conn.transaction():
                    await sign_checkpoint(conn, vault, city_id, now)
    return done


async def keep_logging(
    dsn: str, pool: Pool, vault: Vault | None, clock: Clock, recalled: asyncio.Event
) -> None:
    """The worker's task. What is posted wakes it; now and then it looks by itself.

    Nothing is signed before `recalled`: that what others hold of our logs was looked at.
    """
    connection = await db.connect(dsn, name="timebank-log")
    try:
        wake = asyncio.Event()
        await connection.add_listener("outbox", lambda *_: wake.set())
        while True:
            wake.clear()
            done = await work_once(pool, vault if recalled.is_set() else None, clock())
            if done == 0:
                try:
                    async with asyncio.timeout(POLL_S):
                        await wake.wait()
                except TimeoutError:
                    continue
            await asyncio.sleep(PAUSE_S)
    finally:
        await connection.close(timeout=5)
