"""Whether the services of a quiet network agree: every copy is at the version of its owner.

It looks into the databases and into Redis, as no service may; it is for tests and for the person
who wonders. Run it when nothing changes any more: what is under way counts as a difference.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import asyncpg
from redis.asyncio import Redis

SERVICES = ("identity", "timebank", "access", "places")
PIPELINE = 1000
PUBLISHED_DOORS = (
    "SELECT door_id, p.version FROM door JOIN place p USING (place_id)"
    " WHERE p.status <> 'candidate'"
)
SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class Stores:
    """Where the state is: a database per service (an account that may read all), and Redis."""

    databases: Mapping[str, str]
    redis_url: str


def compare(what: str, owner: Mapping[str, int], copy: Mapping[str, int]) -> list[str]:
    """Versions by id, at the owner and in a copy. One line per difference, shortened."""
    lines = [
        f"{what} {key}: version {copy.get(key, 'none')}, its owner has {version}"
        for key, version in owner.items()
        if copy.get(key) != version
    ]
    lines += [f"{what} {key}: its owner does not know it" for key in copy.keys() - owner.keys()]
    if len(lines) > SHOWN_MAX:
        return [*lines[:SHOWN_MAX], f"{what}: {len(lines) - SHOWN_MAX} more differences"]
    return lines


async def differences(stores: Stores) -> list[str]:
    """What disagrees, in words; empty when the network has converged."""
    connections = {
        name: await asyncpg.connect(url, timeout=10) for name, url in stores.databases.items()
    }
    redis = Redis.from_url(stores.redis_url, decode_responses=True)
    try:
        found = await copies_in_databases(connections)
        found += await copies_in_redis(connections, redis)
        for name, connection in connections.items():
            found += await leftovers(name, connection)
        found += await doubles(connections)
        if waiting := await redis.xlen("taps"):
            found.append(f"{waiting} taps are not yet in the history")
    finally:
        await redis.aclose()
        for connection in connections.values():
            await connection.close()
    return found


async def converged(stores: Stores, within_s: float) -> list[str]:
    """Waits until nothing disagrees; what still does after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            found = await differences(stores)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            found = [f"cannot look: {error!r}"]
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.5)


async def versions(connection: asyncpg.Connection, query: str) -> dict[str, int]:
    return {str(key): int(version) for key, version in await connection.fetch(query)}


async def copies_in_databases(connections: Mapping[str, asyncpg.Connection]) -> list[str]:
    identity, timebank, places = (connections[name] for name in ("identity", "timebank", "places"))
    cities = await versions(identity, "SELECT city_id, version FROM city")
    members = await versions(
        identity, "SELECT member_id, version FROM member WHERE city_id IS NOT NULL"
    )
    readers = await versions(identity, "SELECT reader_id, version FROM reader")
    published = await versions(
        places, "SELECT place_id, version FROM place WHERE status <> 'candidate'"
    )
    return [
        *compare(
            "timebank's book of",
            cities,
            await versions(timebank, "SELECT city_id, city_version FROM book"),
        ),
        *compare(
            "timebank's member",
            members,
            await versions(timebank, "SELECT member_id, version FROM member"),
        ),
        *compare(
            "places' city", cities, await versions(places, "SELECT city_id, version FROM city")
        ),
        *compare(
            "places' reader",
            readers,
            await versions(places, "SELECT reader_id, version FROM reader"),
        ),
        *compare(
            "identity's place",
            published,
            await versions(identity, "SELECT place_id, version FROM known_place"),
        ),
    ]


async def copies_in_redis(connections: Mapping[str, asyncpg.Connection], redis: Redis) -> list[str]:
    identity, timebank, places = (connections[name] for name in ("identity", "timebank", "places"))
    found = []
    for kind, connection, query in (
        (
            "member",
            identity,
            "SELECT member_id, version FROM member WHERE city_id IS NOT NULL",
        ),
        ("reader", identity, "SELECT reader_id, version FROM reader"),
        ("standing", timebank, "SELECT member_id, version FROM standing"),
        ("place", places, "SELECT place_id, version FROM place WHERE status <> 'candidate'"),
        (
            "door",
            places,
            PUBLISHED_DOORS,
        ),
    ):
        owner = await versions(connection, query)
        found += compare(f"access's {kind}", owner, await documents(redis, kind, owner))
    cards = await identity.fetch("SELECT card_id, credential_hash, version FROM card")
    owner = {str(card["card_id"]): int(card["version"]) for card in cards}
    copy: dict[str, int] = {}
    async with redis.pipeline(transaction=False) as pipe:
        for card in cards:
            pipe.hget(f"card:{card['credential_hash']}", str(card["card_id"]))
        for card, text in zip(cards, await pipe.execute(), strict=True):
            if text is not None:
                copy[str(card["card_id"])] = version_in(text)
    return found + compare("access's card", owner, copy)


def version_in(document: str | bytes) -> int:
    text = document.decode() if isinstance(document, bytes) else document
    return int(text.split(" ", 1)[0])


async def documents(redis: Redis, kind: str, ids: Iterable[str]) -> dict[str, int]:
    """The version that each document of a kind begins with."""
    wanted = list(ids)
    found: dict[str, int] = {}
    for start in range(0, len(wanted), PIPELINE):
        part = wanted[start : start + PIPELINE]
        for key, text in zip(
            part, await redis.mget([f"{kind}:{one}" for one in part]), strict=True
        ):
            if text is not None:
                found[key] = version_in(text)
    return found


async def leftovers(service: str, connection: asyncpg.Connection) -> list[str]:
    """Events not yet sent, and messages that somebody gave up on."""
    waiting = await connection.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL")
    dead = await connection.fetch("SELECT topic, error FROM dead_letter WHERE resolved_at IS NULL")
    lines = [f"{service}: {waiting} events not sent"] if waiting else []
    return lines + [f"{service}: dead letter of {row['topic']}: {row['error']}" for row in dead]


async def doubles(connections: Mapping[str, asyncpg.Connection]) -> list[str]:
    """Effects that are there twice, or half. What a primary key forbids is not looked for."""
    taps = await connections["access"].fetchval(
        "SELECT count(*) FROM (SELECT 1 FROM tap GROUP BY tap_id, reader_id HAVING count(*) > 1)"
    )
    accounts = await connections["timebank"].fetchval(
        "SELECT count(*) FROM (SELECT 1 FROM member m LEFT JOIN account a"
        " ON a.kind = 'member' AND a.owner_id = m.member_id"
        " GROUP BY m.member_id HAVING count(a.account_id) <> 1)"
    )
    balances = await connections["timebank"].fetchval(
        "SELECT count(*) FROM account a WHERE balance_minutes <>"
        " (SELECT coalesce(sum(minutes), 0) FROM posting p WHERE p.account_id = a.account_id)"
    )
    total = await connections["timebank"].fetchval("SELECT coalesce(sum(minutes), 0) FROM posting")
    found = {
        f"{taps} taps are in the history twice": taps,
        f"{accounts} members do not have exactly one account": accounts,
        f"{balances} balances are not the sum of their postings": balances,
        f"all postings sum to {total} minutes": total,
    }
    return [text for text, wrong in found.items() if wrong]
