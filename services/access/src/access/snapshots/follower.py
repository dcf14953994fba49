"""The state topics of the other services → the tables of snapshots.

Beside the projector, which keeps Redis for taps: that one must be fast and this one complete. How
far it surely is, it notes for every partition; a snapshot is as old as the oldest of these.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer

from access.documents import (
    CardState,
    MemberState,
    ReaderState,
    StandingState,
    place_documents,
    split_door,
)
from access.events import CARDS, MEMBERS, PLACES, READERS, STANDINGS
from access.projector import Projector
from access.settings import Settings
from access.snapshots import store
from common.clock import Clock
from common.consumer import BatchHandler, Consumer, Handler
from common.db import Conn, Pool
from common.events import Event

SNAPSHOTS_GROUP = "access.snapshots"
# A snapshot may be so much older than what is in it.
EVERY_S = 5.0
LOOK_S = 0.5
GIVE_WAY_S = 60.0

Save = Callable[[Conn, Sequence[Mapping[str, Any]], int], Awaitable[None]]


def newest(states: Sequence[Mapping[str, Any]], id_of: str) -> list[Mapping[str, Any]]:
    """The newest state of each thing, in the order of the ids."""
    found: dict[str, Mapping[str, Any]] = {}
    for state in states:
        known = found.get(state[id_of])
        if known is None or known["version"] < state["version"]:
            found[state[id_of]] = state
    return [found[key] for key in sorted(found)]


async def learn_cards(conn: Conn, events: Sequence[Event]) -> None:
    cards = [CardState.model_validate_json(orjson.dumps(event.data)) for event in events]
    states = [{**card.model_dump(include=CARD_FIELDS), "more": card.more()} for card in cards]
    await store.save_cards(conn, newest(states, "card_id"), await store.next_sequence(conn))


async def learn_members(conn: Conn, events: Sequence[Event]) -> None:
    members = [MemberState.model_validate(event.data).model_dump() for event in events]
    await store.save_members(conn, newest(members, "member_id"), await store.next_sequence(conn))


async def learn_standings(conn: Conn, events: Sequence[Event]) -> None:
    states = [StandingState.model_validate(event.data).model_dump() for event in events]
    await store.save_standings(conn, newest(states, "member_id"), await store.next_sequence(conn))


async def learn_reader(conn: Conn, event: Event) -> None:
    await store.save_reader(conn, ReaderState.model_validate(event.data).model_dump())


async def learn_place(conn: Conn, event: Event) -> None:
    """The policies of the doors, in the words in which a tap reads them too."""
    place, *doors = place_documents(orjson.dumps(event.data))
    policies = {
        door.key.removeprefix("door:"): orjson.loads(split_door(bytes(door.value))[2])
        for door in doors
        if isinstance(door.value, bytes)
    }
    place_id = place.key.removeprefix("place:")
    sequence = await store.next_sequence(conn)
    await store.save_place(conn, place_id, place.version, policies, sequence)


CARD_FIELDS = {"card_id", "version", "credential_hash", "member_id", "status"}
HANDLERS: Mapping[str, Handler | BatchHandler] = {
    CARDS.name: BatchHandler(learn_cards),
    MEMBERS.name: BatchHandler(learn_members),
    STANDINGS.name: BatchHandler(learn_standings),
    READERS.name: learn_reader,
    PLACES.name: learn_place,
}


async def after_taps(consumer: Consumer, projector: Projector) -> None:
    """Follow, but leave the process to a Redis that is rebuilt, for a while: while Redis is away
    readers decide alone, and have to hear what was withdrawn. Raises what failed."""
    loop = asyncio.get_running_loop()
    while True:
        give_up_at = loop.time() + GIVE_WAY_S
        while not projector.is_caught_up and loop.time() < give_up_at:
            await asyncio.sleep(LOOK_S)
        following = asyncio.create_task(consumer.run())
        try:
            had_caught_up = projector.is_caught_up
            while not following.done() and not (had_caught_up and not projector.is_caught_up):
                had_caught_up = projector.is_caught_up
                await asyncio.sleep(LOOK_S)
            if following.done():
                following.result()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


class Progress:
    """Notes which partitions were read to their end, and when."""

    def __init__(
        self, settings: Settings, pool: Pool, clock: Clock, *, every_s: float = EVERY_S
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.clock = clock
        self.every_s = every_s
        self._next_at = 0.0

    async def watch(self, consumer: AIOKafkaConsumer) -> None:
        """Called now and then between two polls, when all that was polled is handled. Asking the
        broker for the ends also shows that it is there. Raises what failed."""
        assigned = sorted(consumer.assignment())
        at = asyncio.get_running_loop().time()
        if not assigned or at < self._next_at:
            return
        self._next_at = at + self.every_s
        before = self.clock()
        ends = await consumer.end_offsets(assigned)
        done: list[tuple[str, int]] = []
        for partition in assigned:
            fetched = consumer.highwater(partition)
            if fetched is None:  # Tansu tells the end too low when it is asked; a fetch knows it
                continue
            if await consumer.position(partition) >= max(ends[partition], fetched):
                topic = str(partition.topic).removeprefix(self.settings.kafka_topic_prefix)
                done.append((topic, partition.partition))
        if done:
            async with self.pool.acquire() as conn, conn.transaction():
                await store.save_progress(conn, done, before)
