"""Cards that answer for themselves: each message opens one door, once, whatever is lost."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from access_world import CARD_KEYS, Holder, Person, World, new, problem, until

from copass_tap.ntag424 import KeySet


@pytest.fixture
async def holder(open_world: World) -> Holder:
    holder = Holder()
    await open_world.publish(*holder.states())
    await open_world.knows(holder)
    return holder


async def tapped(world: World, message: dict[str, str], **changes: Any) -> str:
    response = await world.post(world.body("", credential=message, **changes))
    assert response.status_code == 200, response.text
    return str(response.json()["reason"])


async def test_a_card_opens_a_door_that_wants_more_than_a_number(
    open_world: World, holder: Holder
) -> None:
    _, _, place = open_world.place()
    strong = [{**door, "min_assurance": 2} for door in place["doors"]]
    await open_world.publish(open_world.place(2, doors=strong))

    async def is_strong() -> bool:
        anybody = Person()
        await open_world.publish(*anybody.states())
        await open_world.knows(anybody)
        return await open_world.reason(anybody.uid) == "credential_too_weak"

    await until(is_strong)
    assert await tapped(open_world, holder.message(1)) == "network_member"
    # The same UID, copied to a plain card, is nobody.
    assert await open_world.reason(holder.uid) == "unknown_credential"


async def test_a_message_opens_once_and_only_forwards(open_world: World, holder: Holder) -> None:
    assert await tapped(open_world, holder.message(5)) == "network_member"
    assert await tapped(open_world, holder.message(5)) == "credential_replayed"
    assert await tapped(open_world, holder.message(4)) == "credential_replayed"
    assert await tapped(open_world, holder.message(9)) == "network_member"


async def test_a_message_that_was_denied_is_used_all_the_same(
    open_world: World, holder: Holder
) -> None:
    closed = {"door_id": open_world.home_door_id}
    assert await tapped(open_world, holder.message(1), **closed) == "not_entitled"
    assert await tapped(open_world, holder.message(1)) == "credential_replayed"


async def test_the_same_tap_keeps_its_answer(open_world: World, holder: Holder) -> None:
    body = open_world.body("", credential=holder.message(3))
    answers = await asyncio.gather(*(open_world.post(body) for _ in range(5)))
    assert {answer.json()["reason"] for answer in answers} == {"network_member"}
    assert len({answer.json()["decision_id"] for answer in answers}) == 1


async def test_a_used_message_stays_used_when_redis_is_lost(
    open_world: World, holder: Holder
) -> None:
    assert await tapped(open_world, holder.message(7)) == "network_member"
    await open_world.pipe.call("FLUSHALL")
    # Until the documents are there again the service says not ready, and the reader decides.
    body = open_world.body("", credential=holder.message(7))
    assert problem(await open_world.post(body))[:2] == (503, "not_ready")
    await open_world.ready()
    await open_world.knows(holder)
    assert await tapped(open_world, holder.message(7)) == "credential_replayed"
    assert await tapped(open_world, holder.message(8)) == "network_member"


@pytest.mark.parametrize(
    "keys", [KeySet(CARD_KEYS.meta, bytes(16)), KeySet(bytes([1] * 16), bytes(16))]
)
async def test_a_forged_message_is_nobodys(open_world: World, holder: Holder, keys: KeySet) -> None:
    """Also one that names a card of ours with a counter that would shut the real one out."""
    assert await tapped(open_world, holder.message(2**24 - 1, keys)) == "unknown_credential"
    assert await tapped(open_world, holder.message(1)) == "network_member"


async def test_a_message_that_a_reader_sends_late_was_not_used_twice(
    open_world: World, holder: Holder
) -> None:
    """The reader was alone at 5, the card went on to 6 elsewhere. The same 6 again is another
    matter: two doors saw one message."""
    assert await tapped(open_world, holder.message(6)) == "network_member"
    past = {"mode": "replay", "occurred_at": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}
    assert await tapped(open_world, holder.message(5), **past) == "network_member"
    assert await tapped(open_world, holder.message(6), **past) == "credential_replayed"


async def test_a_blocked_card_is_blocked(open_world: World, holder: Holder) -> None:
    await open_world.publish(holder.card(2, status="blocked"))
    counter = iter(range(1, 10_000))

    async def is_blocked() -> bool:
        return await tapped(open_world, holder.message(next(counter))) == "credential_blocked"

    await until(is_blocked)


async def test_without_the_database_a_plain_card_opens_and_a_message_waits(
    open_world: World, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise asyncpg.CannotConnectNowError("the database system is starting up")

    monkeypatch.setattr("access.store.claim_counter", away)
    refused = await open_world.post(open_world.body("", credential=holder.message(1)))
    assert problem(refused)[:2] == (503, "unavailable")
    monkeypatch.undo()
    assert await tapped(open_world, holder.message(1)) == "network_member"


async def test_a_message_in_a_batch_of_late_taps(open_world: World, holder: Holder) -> None:
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    taps = [
        open_world.body("", credential=holder.message(number), mode="replay", occurred_at=past)
        for number in (1, 2)
    ]
    answer = await open_world.http.post(
        "/v1/taps/batch",
        json={"taps": taps},
        headers={"authorization": f"Bearer {open_world.reader_id}.{'s' * 32}"},
    )
    reasons = [item["answer"]["reason"] for item in answer.json()["answers"]]
    assert reasons == ["network_member", "network_member"]


async def test_messages_and_counters_are_in_no_event(open_world: World, holder: Holder) -> None:
    message = holder.message(1)
    body = open_world.body("", credential=message, tap_id=new())
    await open_world.post(body)
    entries = str(await open_world.pipe.call("XRANGE", "taps", "-", "+")).lower()
    assert body["tap_id"] in entries
    for secret in (message["picc_data"], message["mac"], holder.uid.lower()):
        assert secret not in entries
