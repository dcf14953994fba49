"""The pass on a phone at real doors: each code once at each, whatever is lost, and no other's."""

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from access_world import PEPPER, Person, World, new, problem, until
from phone import Phone

from access import retention
from access.events import CARDS
from common.events import Topic
from copass_tap.credentials import credential_hash
from copass_tap.decision import REPLAY_AGE_MAX

SIDE_DOOR = new()
GUEST = "CG1.AEAQCAIBAEAQCAIBAEAQCAIBAE"
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def window() -> int:
    return int(time.time()) // 30


class Carrier(Person):
    """A member with a pass on a phone."""

    def __init__(self) -> None:
        super().__init__()
        self.phone = Phone(self.card_id)

    @property
    def hash(self) -> str:
        return credential_hash(PEPPER.encode(), "pass", self.card_id)

    @property
    def card_key(self) -> str:
        return f"card:{self.hash}"

    def card(self, version: int = 1, **changes: Any) -> tuple[Topic, str, dict[str, Any]]:
        phone = {
            "credential_hash": self.hash,
            "credential_type": "pass",
            "public_key": self.phone.public_key,
        }
        return super().card(version, **{**phone, **changes})


@pytest.fixture
async def carrier(open_world: World) -> Carrier:
    carrier = Carrier()
    _, _, place = open_world.place()
    doors = [*place["doors"], {**place["doors"][0], "door_id": SIDE_DOOR}]
    strong = [{**door, "min_assurance": 2} for door in doors]
    await open_world.publish(*carrier.states(), open_world.place(2, doors=strong))
    await open_world.knows(carrier)
    return carrier


async def shown(world: World, text: str, **changes: Any) -> str:
    response = await world.post(
        world.body("", credential={"type": "pass", "code": text}, **changes)
    )
    assert response.status_code == 200, response.text
    return str(response.json()["reason"])


async def test_a_code_serves_once_at_each_door_whatever_is_lost(
    open_world: World, carrier: Carrier
) -> None:
    now, other_door = window(), {"door_id": open_world.home_door_id}
    text = carrier.phone.show(now)
    body = open_world.body("", credential={"type": "pass", "code": text})
    reasons = await asyncio.gather(*(shown(open_world, text) for _ in range(16)))
    assert sorted(reasons) == ["credential_replayed"] * 15 + ["network_member"]
    # Signed anew it is another text, and the same code.
    assert await shown(open_world, carrier.phone.show(now)) == "credential_replayed"
    # Another door opens to the same code, or says why not as often as it is asked.
    for _ in range(2):
        assert await shown(open_world, text, **other_door) == "not_entitled"
    assert await shown(open_world, text, door_id=SIDE_DOOR) == "network_member"
    assert await shown(open_world, text, door_id=SIDE_DOOR) == "credential_replayed"
    newer = open_world.body("", credential={"type": "pass", "code": carrier.phone.show(now + 1)})
    answers = [(await open_world.post(newer)).json() for _ in range(2)]
    assert [answer["reason"] for answer in answers] == ["network_member"] * 2
    assert answers[0] == answers[1]  # the same tap keeps its answer
    assert await shown(open_world, carrier.phone.show(now)) == "credential_replayed"
    # A tap_id with another code is another tap.
    reused = {**newer, "credential": body["credential"]}
    assert problem(await open_world.post(reused))[:2] == (422, "tap_id_reused")
    # Shown on the way out, it opens no way in afterwards.
    leaver = Carrier()
    await open_world.publish(*leaver.states())
    await open_world.knows(leaver)
    left = leaver.phone.show(window())
    assert await shown(open_world, left, direction="out") == "exit"
    assert await shown(open_world, left) == "credential_replayed"
    assert await shown(open_world, left, direction="out") == "exit"

    await open_world.publish(leaver.card(2, status="blocked"))
    await open_world.pipe.call("FLUSHALL")
    lost = open_world.body("", credential=newer["credential"])
    assert problem(await open_world.post(lost))[:2] == (503, "not_ready")
    await open_world.ready()
    await open_world.knows(carrier, leaver)
    assert await shown(open_world, newer["credential"]["code"]) == "credential_replayed"
    assert await shown(open_world, leaver.phone.show(window() + 1)) == "credential_blocked"


async def test_nobody_elses_code_and_none_of_another_moment(
    open_world: World, carrier: Carrier
) -> None:
    """Nor is anything used up by them: after all of it the phone itself opens the door."""
    now = window()
    thief = Phone(carrier.card_id)
    stranger = Phone(new())
    assert await shown(open_world, thief.show(now + 1)) == "unknown_credential"
    assert await shown(open_world, stranger.show(now)) == "unknown_credential"
    assert await shown(open_world, carrier.phone.show(now + 5)) == "pass_expired"
    assert await shown(open_world, carrier.phone.show(now - 5)) == "pass_expired"
    # The way out is open to all, and tells nothing of whose card it was not.
    assert await shown(open_world, thief.show(now + 1), direction="out") == "exit"
    assert await shown(open_world, carrier.phone.show(now + 5), direction="out") == "exit"
    chance, text = random.Random(11), carrier.phone.show(now)
    for _ in range(60):
        changed = list(text)
        for at in chance.sample(range(4, len(text)), 2):
            changed[at] = chance.choice(DIGITS.replace(changed[at], ""))
        mutated = "".join(changed)
        response = await open_world.post(
            open_world.body("", credential={"type": "pass", "code": mutated})
        )
        assert response.status_code == 422 or response.json()["decision"] == "deny"
    uid = {"type": "uid", "uid": carrier.uid}  # the number of a plain card names no phone
    assert (await open_world.post(open_world.body("", credential=uid))).json()["decision"] == "deny"
    assert await shown(open_world, text) == "network_member"
    forged = (await open_world.pipe.call("XRANGE", "taps", "-", "+"))[:2]
    assert not any(carrier.member_id in str(event) for event in forged)

    # A reader that was alone sends late what was shown to it then.
    then = datetime.now(UTC) - timedelta(hours=1)
    past = {"mode": "replay", "occurred_at": then.isoformat()}
    earlier = carrier.phone.show(int(then.timestamp()) // 30)
    assert await shown(open_world, earlier, **past) == "network_member"
    assert await shown(open_world, earlier) == "pass_expired"
    assert await shown(open_world, carrier.phone.show(window()), **past) == "pass_expired"

    moment = datetime.now(UTC)
    assert await retention.forget_codes(open_world.pool, moment) == 0
    assert await retention.forget_codes(open_world.pool, moment + REPLAY_AGE_MAX) == 0
    later = moment + REPLAY_AGE_MAX + timedelta(minutes=2)
    assert await retention.forget_codes(open_world.pool, later) == 1


async def test_a_guest_comes_while_invited_to_where_they_are_invited(open_world: World) -> None:
    """As one person among all: room is theirs only if there is some, and the host is not moved."""
    host, card_id, now = Person(), new(), datetime.now(UTC)
    version = iter(range(1, 100))

    async def invited(**changes: Any) -> str:
        """What the door says once it knows of this."""
        data = {
            "card_id": card_id,
            "version": next(version),
            "credential_hash": credential_hash(PEPPER.encode(), "guest", GUEST[4:]),
            "credential_type": "guest",
            "member_id": card_id,
            "status": "active",
            "public_key": None,
            "valid_from": (now - timedelta(hours=1)).isoformat(),
            "valid_until": (now + timedelta(hours=1)).isoformat(),
            "places": [open_world.place_id, new()],
            "host_member_id": host.member_id,
            **changes,
        }
        await open_world.publish((CARDS, card_id, data))
        known, is_ended = f"{data['version']} ".encode(), data["status"] == "ended"

        async def is_known() -> bool:
            document = await open_world.pipe.call(
                "HGET", f"card:{data['credential_hash']}", card_id
            )
            return document is None if is_ended else (document or b"").startswith(known)

        await until(is_known)
        return await reason()

    async def reason(**changes: Any) -> str:
        credential = {"type": "guest", "code": GUEST}
        answer = await open_world.post(open_world.body("", credential=credential, **changes))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["reason"])

    await open_world.publish(*host.states())
    await open_world.knows(host)
    assert await reason() == "unknown_credential"
    assert await invited(places=[new()]) == "guest_not_valid"
    assert await invited(valid_until=(now - timedelta(minutes=1)).isoformat()) == "guest_not_valid"
    assert await invited(valid_from=(now + timedelta(minutes=5)).isoformat()) == "guest_not_valid"
    assert await invited(status="blocked") == "credential_blocked"
    assert await invited() == "guest"
    assert await reason(door_id=open_world.home_door_id) == "not_entitled"
    assert await reason(direction="out") == "exit"
    _, _, place = open_world.place()
    await open_world.publish(open_world.place(2, doors=[{**place["doors"][0], "min_assurance": 2}]))

    async def is_strict() -> bool:
        return await reason() == "credential_too_weak"

    await until(is_strict)
    assert await invited(status="ended") == "unknown_credential"
    inside = await open_world.pipe.call("ZRANGE", f"inside:{open_world.place_id}", 0, -1)
    assert host.member_id.encode() not in inside
