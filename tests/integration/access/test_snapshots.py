"""What readers decide from while they are alone, as the service gives it to them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from access_world import (
    CARD_KEYS,
    PEPPER,
    SECRET,
    STEWARD,
    STRANGER,
    Holder,
    Person,
    World,
    new,
    problem,
    running,
    until,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from access.app import listen
from access.snapshots import follower
from access.snapshots.signing import CARD_KEY, OFFLINE_SECRETS
from common.clock import utc_now
from common.consumer import Consumer
from common.sealing import Sealer, derive_key
from copass_tap.credentials import credential_hash
from copass_tap.ntag424 import KEY_FILE_READ
from copass_tap.snapshots import (
    CHANGES,
    BadPaper,
    Entry,
    Snapshot,
    read_paper,
    read_snapshot,
)


def auth(world: World) -> dict[str, str]:
    return {"authorization": f"Bearer {world.reader_id}.{SECRET}"}


@asynccontextmanager
async def following(world: World) -> AsyncIterator[None]:
    """The tables of snapshots are kept up to date, and the API hears of it."""
    progress = follower.Progress(world.settings, world.pool, utc_now, every_s=0.2)
    consumer = Consumer(
        world.settings,
        world.pool,
        follower.SNAPSHOTS_GROUP,
        follower.HANDLERS,
        watch=progress.watch,
    )
    async with running(consumer.run, lambda: listen(world.settings, world.app.state.desk)):
        yield


async def key_of(world: World) -> Ed25519PublicKey:
    answer = (await world.http.get("/v1/readers/self", headers=auth(world))).json()
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(answer["snapshot_key"]))


async def fetch(world: World, door_id: str | None = None, **headers: str) -> httpx.Response:
    door = door_id or world.door_id
    return await world.http.get(f"/v1/doors/{door}/snapshot", headers={**auth(world), **headers})


def entry_of(snapshot: Snapshot, person: Person) -> Entry | None:
    return snapshot.find(person.card_key.removeprefix("card:"))


async def changes(world: World, after: int, wait_s: int = 0) -> dict[str, Any]:
    response = await world.http.get(
        f"/v1/doors/{world.door_id}/changes",
        params={"after": after, "wait_s": wait_s},
        headers=auth(world),
    )
    assert response.status_code == 200, response.text
    paper: dict[str, Any] = json.loads(read_paper(CHANGES, response.content, await key_of(world)))
    return paper


@pytest.fixture
async def told(world: World) -> AsyncIterator[tuple[World, Person, Person, Holder]]:
    """A visitor, a lapsed resident and a member with a cryptographic card, in the tables."""
    anne, rose, holder = Person(), Person(), Holder()
    home = {world.place_id: "resident"}
    await world.publish(
        world.place(),
        world.reader(),
        *anne.states(),
        *holder.states(),
        rose.card(),
        rose.member(places=home),
        rose.standing("lapsed"),
    )
    async with following(world):

        async def is_there() -> bool:
            response = await fetch(world)
            if response.status_code != 200:
                return False
            snapshot = read_snapshot(response.content, await key_of(world))
            return all(entry_of(snapshot, one) for one in (anne, rose, holder))

        await until(is_there)
        yield world, anne, rose, holder


async def test_what_a_reader_is_given_to_decide_alone(
    told: tuple[World, Person, Person, Holder],
) -> None:
    """In one database: who may enter, the keys of cards, and what is withdrawn."""
    await a_snapshot_says_who_may_enter_and_is_signed_for_one_reader(*told[:3])
    await a_card_shows_its_key_to_the_reader_of_a_resident_only(told[0], told[3])
    await what_lets_fewer_people_in_is_told_at_once(*told[:3])


async def a_snapshot_says_who_may_enter_and_is_signed_for_one_reader(
    world: World, anne: Person, rose: Person
) -> None:
    response = await fetch(world, **{"accept-encoding": "gzip"})
    key = await key_of(world)
    snapshot = read_snapshot(response.content, key)
    header = snapshot.header
    assert (header.door_id, header.reader_id) == (world.door_id, world.reader_id)
    assert header.expires_at - header.issued_at == 8 * 3600
    assert header.household_expires_at - header.issued_at == 72 * 3600
    assert abs(header.issued_at - datetime.now(UTC).timestamp()) < 60
    assert header.policy["unlock_ms"] == 3000
    assert header.is_complete
    assert not header.is_locked_down
    visitor, resident = entry_of(snapshot, anne), entry_of(snapshot, rose)
    assert visitor is not None
    assert resident is not None
    assert (visitor.card_status, visitor.relation, visitor.standing) == ("active", None, "good")
    assert (resident.relation, resident.standing) == ("resident", "lapsed")
    assert snapshot.find("ab" * 32) is None

    # What only this reader can open: never the key from which the keys of cards follow.
    sealed = base64.b64decode(header.sealed)
    opened = json.loads(
        Sealer(derive_key(SECRET, OFFLINE_SECRETS)).unseal(sealed, name=OFFLINE_SECRETS)
    )
    assert opened == {"pepper": PEPPER, "meta": ["00" * 16]}

    # A private door's knows the people who live there, and nobody else.
    home = read_snapshot((await fetch(world, world.home_door_id)).content, key)
    assert entry_of(home, anne) is None
    assert entry_of(home, rose) is not None

    # Any other byte than those that were signed is no snapshot.
    raw = response.content
    for at in (0, 30, len(raw) // 2, len(raw) - 40):
        with pytest.raises(BadPaper):
            read_snapshot(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], key)
    with pytest.raises(BadPaper):
        read_snapshot(raw[:-1], key)

    # Asked again, it stays good; what it is about changes, and it is due.
    etag = response.headers["etag"]
    assert (await fetch(world, **{"if-none-match": etag})).status_code == 304
    assert (await fetch(world, **{"if-none-match": '"1.2"'})).status_code == 200
    await world.publish(world.place(2, capacity=3))

    async def is_new() -> bool:
        return (await fetch(world, **{"if-none-match": etag})).status_code == 200

    await until(is_new)

    # Who may ask: this reader alone, at its own doors alone.
    async def refused(door: str, key: str) -> tuple[int, str, list[str]]:
        headers = {"authorization": f"Bearer {key}"}
        return problem(await world.http.get(f"/v1/doors/{door}/snapshot", headers=headers))

    assert (await refused(new(), f"{world.reader_id}.{SECRET}"))[0] == 404
    assert (await refused(world.door_id, f"{world.reader_id}.{'x' * 32}"))[0] == 401
    assert (await refused(world.door_id, f"{new()}.{SECRET}"))[0] == 401
    assert (await refused(world.door_id, "nonsense"))[0] == 401


async def what_lets_fewer_people_in_is_told_at_once(
    world: World, anne: Person, rose: Person
) -> None:
    start = read_snapshot((await fetch(world)).content, await key_of(world)).header.sequence
    assert (await changes(world, start))["cards"] == []

    waiting = asyncio.create_task(changes(world, start, wait_s=20))
    await until(lambda: is_waiting(world))
    await world.publish(anne.card(2, status="blocked"))
    paper = await waiting
    assert paper["cards"] == [[anne.card_key.removeprefix("card:")[:32], "blocked"]]

    # A resident moves out: told with what is left, which is nothing at this door.
    await world.publish(rose.member(2))

    async def moved() -> bool:
        members = (await changes(world, paper["sequence"]))["members"]
        return [one[1:] for one in members] == [["active", None, "lapsed"]]

    await until(moved)

    waiting = asyncio.create_task(changes(world, paper["sequence"] + 1, wait_s=20))
    await until(lambda: is_waiting(world))
    headers = {**STEWARD, "idempotency-key": new()}
    body = {"active": True, "reason": "gas"}
    await world.pipe.call("SET", f"place:{world.place_id}", '1 {"city_id":"nantes","capacity":1}')
    url = f"/v1/places/{world.place_id}/lockdown"
    response = await world.http.put(url, json=body, headers=headers)
    assert response.status_code == 200, response.text
    assert (await waiting)["is_locked_down"] is True
    assert read_snapshot((await fetch(world)).content, await key_of(world)).header.is_locked_down

    # A sequence of a past that this database does not have: everything from the beginning.
    paper = await changes(world, 10**9)
    assert paper["is_news"]
    assert len(paper["cards"]) == 1


async def is_waiting(world: World) -> bool:
    return bool(world.app.state.desk.waiting)


async def a_card_shows_its_key_to_the_reader_of_a_resident_only(
    world: World, holder: Holder
) -> None:
    url = f"/v1/doors/{world.door_id}/card-keys"

    async def ask(message: dict[str, str]) -> httpx.Response:
        return await world.http.post(url, json=message, headers=auth(world))

    assert problem(await ask(holder.message(1)))[0] == 404  # a visitor
    await world.publish(holder.member(2, places={world.place_id: "resident"}))

    async def is_given() -> bool:
        return (await ask(holder.message(1))).status_code == 200

    await until(is_given)
    answer = (await ask(holder.message(2))).json()
    sealed = base64.b64decode(answer["sealed"])
    key = Sealer(derive_key(SECRET, CARD_KEY)).unseal(sealed, name=CARD_KEY)
    uid = bytes.fromhex(holder.uid)
    assert key == CARD_KEYS.key_of(uid, KEY_FILE_READ)
    assert answer["credential_hash"] == credential_hash(PEPPER.encode(), "ntag424", holder.uid)
    forged = {**holder.message(3), "mac": "00" * 8}
    assert problem(await ask(forged))[0] == 404


async def test_a_message_at_two_doors_that_were_alone_is_found(open_world: World) -> None:
    world = open_world
    holder, other = Holder(), new()
    await world.publish(*holder.states(), world.reader(reader_id=other))
    place = world.place(2)
    for door in place[2]["doors"]:
        door["readers"].append(other)
    await world.publish(place)
    await world.knows(holder)
    async with following(world):

        async def knows_readers() -> bool:
            return await world.pool.fetchval("SELECT count(*) FROM snapshot_reader") == 2

        await until(knows_readers)

        async def replay(reader: str, counter: int) -> dict[str, Any]:
            tap = world.body("", credential=holder.message(counter), mode="replay")
            response = await world.http.post(
                "/v1/taps/batch",
                json={"taps": [tap]},
                headers={"authorization": f"Bearer {reader}.{SECRET}"},
            )
            again = await world.http.post(
                "/v1/taps/batch",
                json={"taps": [tap]},
                headers={"authorization": f"Bearer {reader}.{SECRET}"},
            )
            assert again.json() == response.json()
            item: dict[str, Any] = response.json()["answers"][0]
            return item

        await until(lambda: granted(world, replay(other, 1)))
        assert (await replay(other, 5))["answer"]["decision"] == "grant"
        assert (await replay(world.reader_id, 6))["answer"]["decision"] == "grant"
        # Lower than the last, so it may be late; but another door had the same message.
        await replay(world.reader_id, 5)
        found = (await world.http.get("/v1/tap-conflicts", headers=STEWARD)).json()["items"]
        assert [one["counter"] for one in found] == [5]
        assert {found[0]["first_reader_id"], found[0]["second_reader_id"]} == {
            world.reader_id,
            other,
        }
        assert (await world.http.get("/v1/tap-conflicts", headers=STRANGER)).json()["items"] == []


async def granted(world: World, item: Any) -> bool:
    return ((await item)["answer"] or {}).get("decision") == "grant"


async def test_taps_come_first_when_redis_is_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower gives way to a projector that has to catch up, and not for ever."""
    monkeypatch.setattr(follower, "LOOK_S", 0.01)

    class Projector:
        is_caught_up = False

    class Consumer:
        running = 0

        async def run(self) -> None:
            self.running += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.running -= 1

    projector, consumer = Projector(), Consumer()

    async def is_running(wanted: int) -> bool:
        return consumer.running == wanted

    async with running(lambda: follower.after_taps(consumer, projector)):  # type: ignore[arg-type]  # stand-ins
        await asyncio.sleep(0)
        assert consumer.running == 0
        projector.is_caught_up = True
        await until(lambda: is_running(1))
        projector.is_caught_up = False
        await until(lambda: is_running(0))
        monkeypatch.setattr(follower, "GIVE_WAY_S", 0.05)
        projector.is_caught_up = True
        await until(lambda: is_running(1))
        projector.is_caught_up = False
        await until(lambda: is_running(0))
        await until(lambda: is_running(1))  # Redis stays away
