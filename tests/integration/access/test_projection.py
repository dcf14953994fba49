"""The projection: versions, floods, flushes, lost logs, poison."""

import asyncio

from access_world import STEWARD, Person, World, new, running, until

from access.events import CARDS, MEMBERS, PLACES, PROJECTION_GROUP, READERS
from access.projector import count_documents
from common import kafka
from common.consumer import dead_letters


async def get(world: World, key: str) -> bytes | None:
    value: bytes | None = await world.pipe.call("GET", key)
    return value


async def exists(world: World, key: str) -> bool:
    return bool(await world.pipe.call("EXISTS", key))


async def test_an_older_or_equal_version_changes_nothing(open_world: World) -> None:
    anne = Person()
    await open_world.publish(
        anne.member(3, status="suspended"),
        anne.member(2),
        anne.member(3, status="erased"),
        anne.card(5, status="blocked"),
        anne.card(4),
        *[anne.member(3, status="erased")] * 3,
    )
    await until(lambda: exists(open_world, anne.card_key))
    await until(lambda: exists(open_world, f"member:{anne.member_id}"))
    await open_world.publish(anne.standing("good"))
    await open_world.knows(anne)
    assert await get(open_world, f"member:{anne.member_id}") == b"3 suspended {}"
    assert await open_world.reason(anne.uid) == "credential_blocked"


async def test_a_second_reading_of_everything_leaves_the_same_state(open_world: World) -> None:
    people = [Person() for _ in range(20)]
    await open_world.publish(*(state for person in people for state in person.states()))
    await open_world.knows(*people)
    before = await count_documents(open_world.pipe)
    await open_world.pipe.call("DEL", "projection:offsets")
    again = open_world.projector()

    async def all_is_read() -> bool:
        return again.is_caught_up

    async with running(again.run):
        await until(all_is_read)
    assert await count_documents(open_world.pipe) == before
    assert before["card"] == 20
    assert before["door"] == 2


async def test_a_flushed_redis_is_noticed_and_rebuilt(open_world: World) -> None:
    anne, bert = Person(), Person()
    await open_world.publish(*anne.states(), *bert.states(), bert.card(2, status="blocked"))
    await open_world.knows(anne, bert)
    await open_world.http.put(
        f"/v1/places/{open_world.place_id}/lockdown",
        json={"active": True, "reason": "test"},
        headers={**STEWARD, "idempotency-key": "one"},
    )
    assert await open_world.reason(anne.uid) == "place_locked_down"
    first_generation = await get(open_world, "projection:generation")

    await open_world.pipe.call("FLUSHALL")

    assert (await open_world.post(open_world.body(anne.uid))).status_code == 503
    await open_world.ready()
    assert await get(open_world, "projection:generation") != first_generation
    assert await open_world.reason(anne.uid) == "place_locked_down"
    assert await open_world.reason(bert.uid) == "credential_blocked"


async def test_who_is_inside_is_known_again_after_a_flush(open_world: World) -> None:
    anne, bert, carl = Person(), Person(), Person()
    people = (anne, bert, carl)
    await open_world.publish(*(state for person in people for state in person.states()))
    await open_world.knows(*people)
    async with running(open_world.relay().run, open_world.history_consumer().run):
        for person in people:
            assert await open_world.reason(person.uid) == "network_member"
        assert await open_world.reason(bert.uid, direction="out") == "exit"
        async with asyncio.timeout(20):
            while len(await open_world.history()) < 4:
                await asyncio.sleep(0.05)
    await open_world.pipe.call("FLUSHALL")
    await open_world.ready()
    presence = await open_world.http.get(
        f"/v1/places/{open_world.place_id}/presence", headers=STEWARD
    )
    assert presence.json()["inside"] == 2


async def test_the_projector_goes_on_where_it_stopped(world: World) -> None:
    await world.publish(world.place(), world.reader())
    async with running(world.projector().run):
        await world.ready()
    anne = Person()
    await world.publish(*anne.states())
    generation = await get(world, "projection:generation")
    async with running(world.projector().run):
        await world.knows(anne)
    assert await get(world, "projection:generation") == generation


async def test_a_rebuild_forgets_what_the_log_no_longer_has(open_world: World) -> None:
    from access.__main__ import forget_generation

    await open_world.pipe.call("SET", "reader:ghost", "1 active nantes 00")
    await forget_generation(open_world.settings)
    await open_world.ready()
    assert not await exists(open_world, "reader:ghost")
    assert await exists(open_world, f"reader:{open_world.reader_id}")


async def test_a_log_that_started_again_is_read_from_the_beginning(open_world: World) -> None:
    """The owners publish again under a higher epoch, and the new log has outgrown our position."""
    anne = Person()
    await open_world.publish(*anne.states())
    await open_world.knows(anne)
    # As if these had been published into the new log before we looked at it again.
    await open_world.pipe.call("DEL", anne.card_key)
    await open_world.publish(Person().card(), epoch=1)
    await until(lambda: exists(open_world, anne.card_key))
    field = f"epoch:{CARDS.name} /test"
    assert await open_world.pipe.call("HGET", "projection:offsets", field) == b"1"
    # Another sender counts for itself, and has noticed no more losses than this one.
    await open_world.pipe.call("DEL", anne.card_key)
    await open_world.publish(Person().card(), epoch=1, source="/another")
    await until(lambda: exists(open_world, anne.card_key))


async def test_after_losing_everything_an_empty_log_is_not_all_there_is(world: World) -> None:
    async with world.pool.acquire() as conn:
        await conn.execute("INSERT INTO projection_memory VALUES ('place', 1), ('reader', 1)")
    async with running(world.projector().run):
        await asyncio.sleep(0.5)
        assert not await world.is_ready()
        await world.publish(world.place(), world.reader())
        await world.ready()


async def test_what_does_not_come_back_is_not_waited_for_for_ever(world: World) -> None:
    async with world.pool.acquire() as conn:
        await conn.execute("INSERT INTO projection_memory VALUES ('place', 1)")
    async with running(world.projector(settle_s=0.5).run):
        await world.ready()


async def test_a_new_network_without_anything_is_ready(world: World) -> None:
    async with running(world.projector().run):
        await world.ready()


async def test_readiness_ends_when_nobody_renews_it(world: World) -> None:
    lease = world.settings.model_copy(update={"projection_lease_seconds": 1})
    projector = world.projector()
    projector.settings = lease
    async with running(projector.run):
        await world.ready()

    async def is_over() -> bool:
        return not await world.is_ready()

    await until(is_over)


async def test_poison_is_told_and_passed_over(open_world: World) -> None:
    anne = Person()
    await open_world.publish(
        (CARDS, new(), b"not json"),
        (MEMBERS, new(), {"member_id": "a b", "version": 1, "status": "active"}),
        (PLACES, new(), {"place_id": new(), "version": "x"}),
        (READERS, new(), b"[]"),
        *anne.states(),
    )
    await open_world.knows(anne)
    assert await open_world.reason(anne.uid) == "network_member"
    topic = dead_letters(PROJECTION_GROUP)

    async def is_buried() -> bool:
        count = await open_world.pool.fetchval(
            "SELECT count(*) FROM outbox WHERE topic = $1", topic.name
        )
        return bool(count == 4)

    await until(is_buried)
    async with running(open_world.outbox_relay().run):
        consumer = kafka.make_consumer(open_world.settings, topic.name)
        async with asyncio.timeout(20):
            await kafka.ensure_topics(open_world.settings, [topic])
            await consumer.start()
            letter = await consumer.getone()
        await kafka.stop(consumer)
    assert letter.value is not None


async def test_tombstones_take_things_away(open_world: World) -> None:
    anne = Person()
    await open_world.publish(*anne.states())
    await open_world.knows(anne)
    await open_world.publish((CARDS, anne.card_id, None))

    async def is_unknown() -> bool:
        return await open_world.reason(anne.uid) == "unknown_credential"

    await until(is_unknown)
    await open_world.publish((PLACES, open_world.place_id, None))

    async def is_gone() -> bool:
        return (await open_world.post(open_world.body(anne.uid))).status_code == 404

    await until(is_gone)
