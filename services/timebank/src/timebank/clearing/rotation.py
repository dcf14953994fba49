"""Handing over the keys of our cities, and hearing of those of others."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common import outbox
from common.db import Conn
from common.logging import get_logger
from timebank import events
from timebank import store as ledger_store
from timebank.clearing import keys_store, store
from timebank.clearing.agreements import store as agreements_store
from timebank.clearing.handover import Chain, Handover, WrongKeys, hand_over, read_chain
from timebank.clearing.keys import Vault
from timebank.log import halting
from timebank.log import store as log_store

# The longest deadline of a transfer: what was on its way under the old key has arrived by then.
OVERLAP = timedelta(days=7)
# What was being signed with the old key as it was replaced was signed in time.
OVERLAP_MIN = timedelta(minutes=1)
CHANGE = "key handed over"

log = get_logger(__name__)


class NotHandedOver(Exception):
    """The key stays; the message says why."""


async def rotate(
    conn: Conn, vault: Vault, city_id: str, now: datetime, overlap: timedelta = OVERLAP
) -> Handover:
    """Make a new key for a city of ours, let the old one hand over to it, and publish that.

    The old private key is gone afterwards. Raises NotHandedOver, with nothing changed.
    """
    if not await ledger_store.has_book(conn, city_id):
        raise NotHandedOver(f"{city_id} has no book here")
    # Under the lock of the log no checkpoint is signed meanwhile: which key signs which is exact.
    head = await log_store.lock_head(conn, city_id)
    if head.halted is not None:
        raise NotHandedOver(f"the log of {city_id} is halted: {head.halted}")
    own = await keys_store.lock_own_key(conn, city_id)
    chain = await keys_store.own_chain(conn, city_id)
    if own is None or chain is None:
        raise NotHandedOver(f"{city_id} has no key yet: its worker makes the first")
    told = await keys_store.peer_chain(conn, city_id)
    if told is not None and not chain.goes_on_from(told):
        raise NotHandedOver(f"others know a later key of {city_id} than this database has")
    signed = await log_store.last_checkpoint(conn, city_id)
    new = Ed25519PrivateKey.generate()
    try:
        handover = hand_over(
            city_id,
            chain,
            vault.open(own.sealed_key, city_id),
            new,
            from_size=(signed.size if signed else 0) + 1,
            until=now + max(overlap, OVERLAP_MIN),
        )
    except WrongKeys as error:
        raise NotHandedOver(str(error)) from error
    await keys_store.add_handover(conn, city_id, handover, now)
    await keys_store.replace_own_key(
        conn, city_id, handover.new_key, vault.seal(new, city_id), handover.number, now
    )
    await publish(conn, city_id, Chain(chain.first_key, (*chain.handovers, handover)), now)
    return handover


async def publish(conn: Conn, city_id: str, chain: Chain, now: datetime) -> None:
    """Tell of all keys of a city of ours."""
    await outbox.add(
        conn,
        topic=events.CITY_KEYS,
        key=city_id,
        type=events.CITY_KEY_CHANGED,
        data=events.city_key_changed(city_id, chain.newest, chain.listed()),
        now=now,
    )


# ── Hearing ─────────────────────────────────────────────────────────────────────────────────────


def read_told(
    city_id: str, version: int, public_key: str, listed: Sequence[Mapping[str, Any]]
) -> Chain:
    """What is told of a city's keys, in one piece. Raises WrongKeys."""
    chain = read_chain(city_id, listed)
    if version != len(chain.keys) or public_key != chain.newest.hex():
        raise WrongKeys("the newest key is not the last of the list")
    return chain


async def hear_keys(
    conn: Conn,
    city_id: str,
    version: int,
    public_key: str,
    listed: list[dict[str, Any]] | None,
    now: datetime,
) -> bool:
    """Keep the keys that a city says it has, if they go on from those that are known; whether there
    are more of them now.

    `listed` None: as it was told before keys were handed over. Anything else than what goes on is
    kept as an alarm, and changes nothing.
    """
    items = listed or [{"public_key": public_key, "from_size": 0, "statement": None}]
    try:
        told = read_told(city_id, version, public_key, items)
    except WrongKeys as error:
        await alarm(conn, city_id, items, str(error), now)
        return False
    known = (
        await keys_store.peer_chain(conn, city_id)
        if await keys_store.lock_peer(conn, city_id)
        else None
    )
    if known is not None and not told.goes_on_from(known):
        if known.goes_on_from(told):
            await tell_again(conn, city_id, told, now)
        else:
            why = "they do not go on from the keys that are known"
            await alarm(conn, city_id, items, why, now)
        return False
    for handover in told.handovers:
        await keys_store.add_handover(conn, city_id, handover, now)
    await store.save_peer(conn, city_id, told.newest, version)
    await compare_with_own(conn, city_id, told, now)
    for bound in await keys_store.cities_bound_to(conn, city_id):
        await follow(conn, bound, city_id, told, now)
    return known is None or known.keys != told.keys


async def alarm(
    conn: Conn, city_id: str, told: list[dict[str, Any]], why: str, now: datetime
) -> None:
    if await keys_store.add_alarm(conn, city_id, told, why, now):
        log.error("city_key_not_believed", city=city_id, why=why)


async def tell_again(conn: Conn, city_id: str, told: Chain, now: datetime) -> None:
    """What is told last stays on the topic: when that is an older list of a city of ours, such as
    one that its last time bank tells again because its broker lost the log, ours is told after."""
    if not await ledger_store.has_book(conn, city_id):
        return
    own = await keys_store.own_chain(conn, city_id)
    if own is not None and own.keys != told.keys:
        await publish(conn, city_id, own, now)


async def compare_with_own(conn: Conn, city_id: str, told: Chain, now: datetime) -> None:
    """A key of a city of ours that we do not have: this database is an old one, and signs no
    more."""
    own = await keys_store.own_chain(conn, city_id)
    if own is None or not await ledger_store.has_book(conn, city_id):
        return
    if not own.goes_on_from(told):
        count = len(told.keys) - len(own.keys)
        why = f"its key was handed over {count} times more than this database knows"
        await halting.halt(conn, city_id, why, None, now)


async def follow(conn: Conn, city_id: str, peer_city_id: str, told: Chain, now: datetime) -> None:
    """Pin the peer's newest key where an older one of the same list was pinned."""
    bond = await agreements_store.lock_bond(conn, city_id, peer_city_id)
    if bond is None or bond.peer_key == told.newest or bond.peer_key not in told.keys:
        return
    await agreements_store.save_key(conn, bond, told.newest, change=CHANGE, now=now)
