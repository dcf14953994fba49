r"""What Redis holds: its keys, and how its documents are read and written.

| key | holds |
|---|---|
| `card:<credential hash>` | hash, card_id → `<version> <active\|blocked\|replaced> … <member_id>` |
| `member:<id>` | `<version> <status> <{place_id: relation} as JSON>` |
| `standing:<member_id>` | `<version> <standing>` |
| `reader:<id>` | `<version> <status> <city_id> <SHA-256 of its key>` |
| `place:<id>` | `<version> <{city_id, capacity} as JSON>` |
| `door:<id>` | `<version of its place> <place_id> … <policy as JSON>` |
| `lockdown:<place_id>` | `<version> <0\|1>` |
| `inside:<place_id>` | sorted set, member_id by entry in epoch seconds |
| `inside:<place_id>:<zone>`, `where:<place_id>` | the same by zone; hash, member_id → zone |
| `charge:<place_id>` | sorted set of those inside who are in charge, like `inside` |
| `charged:<place_id>` | hash, zone or `*` → when somebody in charge last came |
| `pardon:<place_id>` | hash, member_id or `*` → until when nothing is held against them |
| `interlock:<place_id>:<name>` | the door that is unlocked, for as long as it is |
| `counter:<credential hash>` | the highest counter seen of that card |
| `tap:<reader_id>:<tap_id>` | the answer given, kept for 48 hours |
| `taps` | stream of decisions not yet confirmed to be in the history |
| `projection:generation` | made when the projection starts from nothing; gone after a flush |
| `projection:changed_at` | when a document was last written, by which a tap sees that one was |
| `projection:offsets`, `projection:documents` | how far it read; documents by kind |
| `projection:ready` | there while taps may be decided; expires when nobody keeps it up to date |

Where the dots are, the card of a phone has `{"public_key"}`, that of a guest its limits, and a door
`+` and what a tap there must look at besides, as JSON without spaces; most have nothing.
All but the interlocks and the last seven can be rebuilt from the state topics, the lockdowns, the
pardons and the history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson

from access.documents import split_door
from access.redis_pipe import RedisPipe, load_script
from access.store import Inside
from copass_tap import documents
from copass_tap.decision import (
    EMPTY_SCENE,
    STAY_MAX,
    Card,
    Decision,
    Door,
    Facts,
    Member,
    Reader,
    Scene,
    Tap,
)

# A reader that heard no answer sends the same tap again, after an outage of a day at most.
ANSWER_KEPT_S = 48 * 3600
STAY_MAX_S = int(STAY_MAX.total_seconds())
# A door of an airlock opens within this time of the answer or not at all, so that the next one is
# not open before it is shut.
INTERLOCK_ANSWER_MS = 1000

READ = load_script("presence.lua", "read.lua")
COMMIT = load_script("presence.lua", "commit.lua")
SET_NEWER = load_script("set_newer.lua")
LIST_INSIDE = load_script("list_inside.lua")
PARDON = load_script("pardon.lua")


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
    zones: tuple[str, ...] = ()


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
        scene,
        host_entered,
    ) = await pipe.run(READ, tap.door_id, reader_id, tap.credential_hash, tap.tap_id, since)
    facts = None
    if door is not None:
        policy = read_door(door, tap.door_id)
        is_inside = entered is not None and float(entered) > since
        around = EMPTY_SCENE
        if scene is not None or host_entered is not None:
            around = read_scene(scene, host_entered, entered if is_inside else None, since)
        facts = Facts(
            door=policy,
            card=read_card(card_id, card, counter) if card is not None else None,
            member=read_member(card, member, standing, policy.place_id) if member else None,
            locked_down=lockdown is not None and lockdown.endswith(b" 1"),
            people_inside=people,
            is_inside=is_inside,
            scene=around,
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
    asks = facts.scene is not EMPTY_SCENE
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
        str(door.capacity) if "room" in decision.needs else "",
        "" if counter is None else str(counter),
        scene_kept(facts, decision) if asks or decision.flags else "",
    )
    return outcome[0].decode(), outcome[1] if len(outcome) > 1 else b""


def scene_kept(facts: Facts, decision: Decision) -> bytes | str:
    """What commit.lua checks and keeps beyond the entry itself, for the doors that ask."""
    if decision.movement == "none":
        return ""
    door, scene, needs = facts.door, facts.scene, decision.needs
    kept: dict[str, Any] = {
        "zones": door.has_zones,
        "zone": decision.zone,
        "in_charge": "in_charge" in decision.flags,
    }
    if door.interlock is not None:
        kept["interlock"], kept["door"] = door.interlock, door.door_id
        kept["hold_ms"] = door.unlock_ms + INTERLOCK_ANSWER_MS
        kept["alone"] = "interlock" in needs
    if "unmoved" in needs:
        kept["unmoved"] = True
        kept["entered"] = str(scene.entered_at) if scene.entered_at is not None else ""
        kept["was"] = scene.zone if scene.zone is not None and facts.is_inside else ""
    if "function_room" in needs or "in_charge" in needs:
        kept["function_zones"] = door.function_zones
    if "function_room" in needs:
        kept["function_capacity"] = door.function_capacity
    if "in_charge" in needs:
        kept["charge"], kept["is_charge_local"] = True, door.is_charge_local
    return orjson.dumps({name: value for name, value in kept.items() if value is not None})


def read_scene(
    scene: Sequence[Any] | None, host_entered: bytes | None, entered: bytes | None, since: int
) -> Scene:
    """What read.lua found beside what every tap asks."""
    host_inside = host_entered is not None and float(host_entered) > since
    entered_at = int(float(entered)) if entered is not None else None
    if scene is None:
        return Scene(entered_at=entered_at, host_inside=host_inside)
    zone, pardons, people, in_charge, came, unlocked = scene
    return Scene(
        entered_at=entered_at,
        zone=zone.decode() if zone is not None else None,
        pardoned_at=latest(pardons),
        people_in_function=people,
        in_charge=in_charge > 0,
        in_charge_at=latest(came),
        unlocked_door=unlocked.decode() if unlocked is not None else None,
        host_inside=host_inside,
    )


def latest(times: Sequence[bytes | None]) -> int | None:
    return max((int(time) for time in times if time is not None), default=None)


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
    zones = tuple(fields.get("zones", ()))
    return Place(place_id, fields["city_id"], fields["capacity"], zones)


async def count_inside(pipe: RedisPipe, place_id: str, now: datetime) -> int:
    """How many members are inside a place. A number, never names."""
    return int(await pipe.call("ZCOUNT", f"inside:{place_id}", f"({inside_since(now)}", "+inf"))


async def put_inside(
    pipe: RedisPipe, people: Sequence[Inside], came: Sequence[tuple[str, str, int]]
) -> None:
    """Put people where the history says that they are, into a Redis that knows of nobody.

    `came`: place_id, zone or `*`, when somebody in charge last came.
    """
    for one in people:
        inside = f"inside:{one.place_id}"
        await pipe.call("ZADD", inside, one.entered_at, one.member_id)
        if one.zone is not None:
            await pipe.call("ZADD", f"{inside}:{one.zone}", one.entered_at, one.member_id)
            await pipe.call("HSET", f"where:{one.place_id}", one.member_id, one.zone)
        if one.in_charge:
            await pipe.call("ZADD", f"charge:{one.place_id}", one.entered_at, one.member_id)
    for place_id, field, at in came:
        await pipe.call("HSET", f"charged:{place_id}", field, at)


async def list_inside(pipe: RedisPipe, place_id: str, now: datetime) -> list[tuple[str, int, str]]:
    """Who is inside, by entry: member_id, epoch seconds of the last movement, zone or ``."""
    found = await pipe.run(LIST_INSIDE, place_id, inside_since(now))
    return [
        (found[at].decode(), int(float(found[at + 1])), found[at + 2].decode())
        for at in range(0, len(found), 3)
    ]


async def pardon(pipe: RedisPipe, place_id: UUID, member_id: UUID | None, until: datetime) -> None:
    """What a member, or everybody, did until then is not held against them. A later one stays."""
    who = str(member_id) if member_id is not None else "*"
    await pipe.run(PARDON, f"pardon:{place_id}", who, int(until.timestamp()), STAY_MAX_S)


async def relation_of(pipe: RedisPipe, member_id: str, place_id: str) -> str | None:
    """What an active member is to a place; None for anybody else."""
    document = await pipe.call("GET", f"member:{member_id}")
    if document is None:
        return None
    _, status, places = document.split(b" ", 2)
    relation: str | None = orjson.loads(places).get(place_id)
    return relation if status == b"active" else None


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
    version, place_id, policy = split_door(document)
    return documents.read_door(door_id, place_id.decode(), int(version), orjson.loads(policy))
