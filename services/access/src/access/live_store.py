r"""What Redis holds: its keys, and how its documents are read and written.

| key | holds |
|---|---|
| `card:<credential hash>` | hash, card_id → `<version> <active\|blocked\|replaced> … <member_id>` |
| `member:<id>` | `<version> <status> <{place_id: relation} as JSON>` |
| `standing:<member_id>` | `<version> <standing>` |
| `reader:<id>` | `<version> <status> <city_id> <SHA-256 of its key>` |
| `place:<id>` | `<version> <{city_id, capacity} as JSON>` |
| `door:<id>` | `<version of its place> <place_id> <policy as JSON>` |
| `lockdown:<place_id>` | `<version> <0\|1>` |
| `inside:<place_id>` | sorted set, member_id by entry in epoch seconds |
| `counter:<credential hash>` | the highest counter seen of that card |
| `tap:<reader_id>:<tap_id>` | the answer given, kept for 48 hours |
| `taps` | stream of decisions not yet confirmed to be in the history |
| `projection:generation` | made when the projection starts from nothing; gone after a flush |
| `projection:changed_at` | when a document was last written, by which a tap sees that one was |
| `projection:offsets`, `projection:documents` | how far it read; documents by kind |
| `projection:ready` | there while taps may be decided; expires when nobody keeps it up to date |

Where the dots are, that of a phone has `{"public_key"}` and that of a guest its limits, as JSON.
All but the last seven can be rebuilt from the state topics, the lockdowns and the history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson

from access.redis_pipe import RedisPipe, load_script
from copass_tap import documents
from copass_tap.decision import (
    STAY_MAX,
    Card,
    Decision,
    Door,
    Facts,
    Member,
    Reader,
    Tap,
)

# A reader that heard no answer sends the same tap again, after an outage of a day at most.
ANSWER_KEPT_S = 48 * 3600
STAY_MAX_S = int(STAY_MAX.total_seconds())

READ = load_script("read.lua")
COMMIT = load_script("commit.lua")
SET_NEWER = load_script("set_newer.lua")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one read found. `previous` is the answer given to this tap before.

    `generation` and `changed_at` say which state of the documents was read.
    """

    ready: bool
    generation: bytes
    changed_at: bytes
    previous: bytes | None
    reader: Reader | None
    facts: Facts | None


@dataclass(frozen=True, slots=True)
class Place:
    place_id: str
    city_id: str
    capacity: int | None


async def read(pipe: RedisPipe, tap: Tap, reader_id: str, now: datetime) -> Snapshot:
    """Step 1: one round trip. `facts` is None for a door that does not exist."""
    since = inside_since(now)
    (
        ready,
        generation,
        changed_at,
        previous,
        door,
        reader,
        lockdown,
        card_id,
        card,
        member,
        standing,
        people,
        entered,
        counter,
    ) = await pipe.run(READ, tap.door_id, reader_id, tap.credential_hash, tap.tap_id, since)
    facts = None
    if door is not None:
        policy = read_door(door, tap.door_id)
        facts = Facts(
            door=policy,
            card=read_card(card_id, card, counter) if card is not None else None,
            member=read_member(card, member, standing, policy.place_id) if member else None,
            locked_down=lockdown is not None and lockdown.endswith(b" 1"),
            people_inside=people,
            is_inside=entered is not None and float(entered) > since,
        )
    return Snapshot(
        ready=ready is not None,
        generation=generation or b"",
        changed_at=changed_at or b"",
        previous=previous,
        reader=read_reader(reader_id, reader) if reader is not None else None,
        facts=facts,
    )


async def commit(
    pipe: RedisPipe,
    tap: Tap,
    reader_id: str,
    snapshot: Snapshot,
    decision: Decision,
    *,
    answer: bytes,
    event: bytes,
    now: datetime,
) -> tuple[str, bytes]:
    """Step 3: one round trip, atomic. `("recorded", b"")`, `("repeated", first answer)`, or
    `("changed", b"")` when the facts may not be what they were: read and decide again."""
    facts = snapshot.facts
    if facts is None:
        raise ValueError("there is no decision without a door")
    card, door = facts.card, facts.door
    # A tap that lost its message to another must not raise the counter before the one that won it.
    counts = tap.mode == "live" and decision.reason != "credential_replayed"
    counter = tap.counter if counts and card is not None else None
    outcome = await pipe.run(
        COMMIT,
        tap.credential_hash,
        f"tap:{reader_id}:{tap.tap_id}",
        snapshot.generation,
        snapshot.changed_at,
        answer,
        ANSWER_KEPT_S,
        event,
        door.place_id,
        card.member_id if card else "",
        decision.movement,
        int(now.timestamp()),
        inside_since(now),
        str(door.capacity) if decision.needs_room else "",
        "1" if decision.needs_outside else "",
        "" if counter is None else str(counter),
    )
    return outcome[0].decode(), outcome[1] if len(outcome) > 1 else b""


def inside_since(now: datetime) -> int:
    """An entry at or before this instant (epoch seconds) no longer counts."""
    return int(now.timestamp()) - STAY_MAX_S


async def is_ready(pipe: RedisPipe) -> bool:
    """Whether the projection has caught up, lately."""
    return bool(await pipe.call("EXISTS", "projection:ready"))


async def read_place(pipe: RedisPipe, place_id: str) -> Place | None:
    document = await pipe.call("GET", f"place:{place_id}")
    if document is None:
        return None
    fields = orjson.loads(document.split(b" ", 1)[1])
    return Place(place_id, fields["city_id"], fields["capacity"])


async def count_inside(pipe: RedisPipe, place_id: str, now: datetime) -> int:
    """How many members are inside a place. A number, never names."""
    return int(await pipe.call("ZCOUNT", f"inside:{place_id}", f"({inside_since(now)}", "+inf"))


async def set_lockdowns(pipe: RedisPipe, lockdowns: Sequence[tuple[str, int, bool]]) -> None:
    """Set `(place_id, version, active)`; one older than what is there changes nothing."""
    arguments: list[str | int] = []
    for place_id, version, active in lockdowns:
        arguments += [f"lockdown:{place_id}", version, f"{version} {int(active)}"]
    if arguments:
        await pipe.run(SET_NEWER, *arguments)


@lru_cache(maxsize=2048)
def read_reader(reader_id: str, document: bytes) -> Reader:
    _, status, city_id, key_sha256 = document.decode().split(" ")
    return Reader(reader_id, city_id, key_sha256, status == "active")


def read_card(card_id: bytes, document: bytes, counter: bytes | None) -> Card:
    words = document.decode().split(" ")
    last_counter = int(counter) if counter is not None else None
    if len(words) == 3:
        return Card(card_id.decode(), words[2], words[1], last_counter)
    return read_pass(card_id.decode(), words, last_counter)


def read_pass(card_id: str, words: Sequence[str], last_counter: int | None) -> Card:
    """The card of a phone or of a guest, which has more to say than a plain one."""
    _, status, more, member_id = words
    fields: dict[str, Any] = orjson.loads(more)
    places = fields.get("places")
    return Card(
        card_id=card_id,
        member_id=member_id,
        status=status,
        last_counter=last_counter,
        public_key=fields.get("public_key"),
        valid_from=fields.get("valid_from"),
        valid_until=fields.get("valid_until"),
        places=frozenset(places) if places is not None else None,
        host_member_id=fields.get("host_member_id"),
    )


def read_member(card: bytes, document: bytes, standing: bytes | None, place_id: str) -> Member:
    _, status, places = document.split(b" ", 2)
    return Member(
        member_id=card.rsplit(b" ", 1)[1].decode(),
        status=status.decode(),
        relation=orjson.loads(places).get(place_id),
        standing=standing.split(b" ")[1].decode() if standing is not None else None,
    )


@lru_cache(maxsize=2048)
def read_door(document: bytes, door_id: str) -> Door:
    """The policy of a door. Kept: the same few doors are read over and over."""
    version, place_id, policy = document.split(b" ", 2)
    return documents.read_door(door_id, place_id.decode(), int(version), orjson.loads(policy))
