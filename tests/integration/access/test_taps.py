"""Taps through the API, over a real projection in a real Valkey."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from access_world import SECRET, STEWARD, STRANGER, Person, World, new, problem, until

from access import live_store


async def known(world: World, *people: Person) -> None:
    """Publish people, and wait until they are known."""
    await world.publish(*(state for person in people for state in person.states()))
    await world.knows(*people)


async def test_a_member_is_let_in_and_the_answer_says_so_in_full(open_world: World) -> None:
    anne = Person()
    await known(open_world, anne)
    before = datetime.now(UTC)
    answer = await open_world.tap(anne.uid)
    assert answer["decision"] == "grant"
    assert answer["reason"] == "network_member"
    assert answer["unlock_ms"] == 3000
    assert answer["message"] == {"fr": "Bienvenue.", "en": "Welcome."}
    assert answer["policy_version"] == 1
    expires_at = datetime.fromisoformat(answer["expires_at"])
    assert timedelta(0) < expires_at - before < timedelta(seconds=15)


async def test_a_blocked_card_is_denied_and_unblocked_works_again(open_world: World) -> None:
    anne = Person()
    await known(open_world, anne)
    await open_world.publish(anne.card(2, status="blocked"))
    await until(lambda: is_reason(open_world, anne.uid, "credential_blocked"))
    assert (await open_world.tap(anne.uid))["unlock_ms"] == 0
    await open_world.publish(anne.card(3))
    await until(lambda: is_reason(open_world, anne.uid, "network_member"))


async def is_reason(world: World, uid: str, reason: str, **changes: Any) -> bool:
    return await world.reason(uid, **changes) == reason


async def test_the_reasons_that_come_from_the_other_services(open_world: World) -> None:
    anne, lapsed, gone, resident = Person(), Person(), Person(), Person()
    await known(open_world, anne, lapsed, gone, resident)
    home = {open_world.place_id: "resident"}
    await open_world.publish(
        lapsed.standing("lapsed", 2),
        gone.member(2, status="suspended"),
        resident.member(2, places=home),
    )
    await until(lambda: is_reason(open_world, resident.uid, "resident"))
    at_home = {"door_id": open_world.home_door_id}
    assert await open_world.reason("0499999999AAAA") == "unknown_credential"
    assert await open_world.reason(gone.uid) == "member_suspended"
    assert await open_world.reason(lapsed.uid) == "standing_lapsed"
    assert await open_world.reason(anne.uid, **at_home) == "not_entitled"
    assert await open_world.reason(resident.uid, **at_home) == "resident"
    assert await open_world.reason("0499999999AAAA", direction="out") == "exit"


async def test_the_reasons_that_come_from_the_place(open_world: World) -> None:
    anne = Person()
    await known(open_world, anne)
    start = int(datetime.now(UTC).timestamp())
    _, _, now_open = open_world.place()
    changes: list[tuple[str, dict[str, Any]]] = [
        ("place_not_in_network", {"status": "suspended"}),
        ("policy_stale", {"expires_at": "2026-01-01T00:00:00Z"}),
        (
            "outside_hours",
            {"doors": [{**now_open["doors"][0], "open": [[start + 3600, start + 7200]]}]},
        ),
        ("credential_too_weak", {"doors": [{**now_open["doors"][0], "min_assurance": 2}]}),
        ("place_full", {"capacity": 0}),
    ]
    for version, (reason, change) in enumerate(changes, start=2):
        # Somebody who got in while the news was under way has a seat in a place that is full.
        await open_world.tap(anne.uid, direction="out")
        await open_world.publish(open_world.place(version, **change))
        await until(lambda reason=reason: is_reason(open_world, anne.uid, reason))  # type: ignore[misc]  # a lambda's default


async def test_a_door_that_the_place_no_longer_has_is_gone(open_world: World) -> None:
    anne = Person()
    await known(open_world, anne)
    _, _, data = open_world.place()
    await open_world.publish(open_world.place(2, doors=data["doors"][:1]))
    body = open_world.body(anne.uid, door_id=open_world.home_door_id)

    async def is_gone() -> bool:
        return (await open_world.post({**body, "tap_id": new()})).status_code == 404

    await until(is_gone)
    assert (await open_world.tap(anne.uid))["decision"] == "grant"


async def test_the_same_tap_gets_the_same_answer(open_world: World) -> None:
    anne = Person()
    await known(open_world, anne)
    body = open_world.body(anne.uid)
    first = await open_world.post(body)
    await open_world.publish(anne.card(2, status="blocked"))
    await until(lambda: is_reason(open_world, anne.uid, "credential_blocked"))
    length = await open_world.stream_length()
    again = await open_world.post(body)
    assert again.json() == first.json()
    assert await open_world.stream_length() == length


async def test_a_tap_id_used_for_another_tap_is_refused(open_world: World) -> None:
    anne = Person()
    await known(open_world, anne)
    body = open_world.body(anne.uid)
    await open_world.post(body)
    length = await open_world.stream_length()
    for change in ({"direction": "out"}, {"credential": {"type": "uid", "uid": "04AABBCCDDEEFF"}}):
        response = await open_world.post({**body, **change})
        assert problem(response) == (422, "tap_id_reused", ["body.tap_id"])
    assert await open_world.stream_length() == length


async def test_the_same_tap_sent_many_times_at_once_is_one_decision(open_world: World) -> None:
    anne = Person()
    await known(open_world, anne)
    body = open_world.body(anne.uid)
    answers = await asyncio.gather(*(open_world.post(body) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["decision_id"] for answer in answers}) == 1
    assert await open_world.stream_length() == 1


async def test_a_hundred_taps_for_ten_seats_grant_exactly_ten(open_world: World) -> None:
    people = [Person() for _ in range(100)]
    await known(open_world, *people)
    answers = await asyncio.gather(*(open_world.tap(person.uid) for person in people))
    reasons = [answer["reason"] for answer in answers]
    assert reasons.count("network_member") == 10
    assert reasons.count("place_full") == 90
    inside = await open_world.http.get(
        f"/v1/places/{open_world.place_id}/presence", headers=STEWARD
    )
    assert inside.json() == {"inside": 10, "capacity": 10}
    assert await open_world.stream_length() == 100


async def test_a_seat_is_free_again_when_somebody_leaves(open_world: World) -> None:
    people = [Person() for _ in range(11)]
    await known(open_world, *people)
    *first_ten, last = people
    for person in first_ten:
        assert await open_world.reason(person.uid) == "network_member"
    assert await open_world.reason(last.uid) == "place_full"
    assert await open_world.reason(first_ten[0].uid) == "network_member"  # has a seat already
    assert await open_world.reason(first_ten[0].uid, direction="out") == "exit"
    assert await open_world.reason(last.uid) == "network_member"


async def test_a_resident_enters_a_full_place_and_counts(open_world: World) -> None:
    people = [Person() for _ in range(10)]
    resident = Person()
    await known(open_world, *people, resident)
    await open_world.publish(resident.member(2, places={open_world.place_id: "resident"}))
    await until(lambda: is_reason(open_world, resident.uid, "resident"))
    reasons = [await open_world.reason(person.uid) for person in people]
    assert reasons.count("network_member") == 9
    assert await open_world.reason(resident.uid) == "resident"


async def test_hard_anti_passback_needs_an_exit_between_two_entries(open_world: World) -> None:
    anne = Person()
    await known(open_world, anne)
    await open_world.publish(open_world.place(2, anti_passback="hard"))

    async def is_hard() -> bool:
        return (await open_world.tap("04AABBCCDDEEFF"))["policy_version"] == 2

    await until(is_hard)
    answers = await asyncio.gather(*(open_world.tap(anne.uid) for _ in range(20)))
    reasons = [answer["reason"] for answer in answers]
    assert reasons.count("network_member") == 1
    assert reasons.count("passback") == 19
    assert await open_world.reason(anne.uid, direction="out") == "exit"
    assert await open_world.reason(anne.uid) == "network_member"


async def test_a_card_that_was_given_to_somebody_else_counts_for_the_new_holder(
    open_world: World,
) -> None:
    first, second = Person(), Person()
    second.uid = first.uid
    await known(open_world, first)
    await open_world.publish(first.card(2, status="replaced"), *second.states(), first.card(1))
    await open_world.knows(second)
    await until(lambda: is_reason(open_world, first.uid, "network_member"))
    event = json.loads((await open_world.pipe.call("XREVRANGE", "taps", "+", "-"))[0][1][1])
    assert event["member_id"] == second.member_id
    assert event["card_id"] == second.card_id


@pytest.mark.parametrize(
    ("change", "reason"), [("block", "credential_blocked"), ("lockdown", "place_locked_down")]
)
async def test_what_changes_between_read_and_commit_is_decided_again(
    open_world: World, monkeypatch: pytest.MonkeyPatch, change: str, reason: str
) -> None:
    anne = Person()
    await known(open_world, anne)
    commit = live_store.commit
    commits = 0

    async def is_blocked() -> bool:
        card = await open_world.pipe.call("HGET", anne.card_key, anne.card_id)
        return bool(card.startswith(b"2 blocked "))

    async def commit_late(*args: Any, **kwargs: Any) -> tuple[str, bytes]:
        nonlocal commits
        commits += 1
        if commits == 1 and change == "block":
            await open_world.publish(anne.card(2, status="blocked"))
            await until(is_blocked)
        elif commits == 1:
            await live_store.set_lockdowns(open_world.pipe, [(open_world.place_id, 1, True)])
        return await commit(*args, **kwargs)

    monkeypatch.setattr(live_store, "commit", commit_late)
    assert await open_world.reason(anne.uid) == reason
    assert commits == 2
    assert await open_world.stream_length() == 1


# --- who may tap ----------------------------------------------------------------------------------


async def test_a_reader_needs_its_own_key(open_world: World) -> None:
    body = open_world.body("04AABBCCDDEEFF")
    for key in (
        f"{open_world.reader_id}.{'x' * 32}",
        f"{new()}.{SECRET}",
        open_world.reader_id,
        f"{open_world.reader_id}.",
        "nonsense",
    ):
        response = await open_world.post(body, key=key)
        assert problem(response)[:2] == (401, "unauthenticated"), key
        assert response.headers["www-authenticate"] == "Bearer"
    response = await open_world.http.post("/v1/taps", json=body)
    assert response.status_code == 401
    assert await open_world.stream_length() == 0


async def test_a_revoked_reader_is_refused(open_world: World) -> None:
    assert await open_world.reason("04AABBCCDDEEFF") == "unknown_credential"
    await open_world.publish(open_world.reader(2, status="revoked"))

    async def is_refused() -> bool:
        return (await open_world.post(open_world.body("04AABBCCDDEEFF"))).status_code == 401

    await until(is_refused)


async def test_a_readers_key_is_for_its_own_door_only(open_world: World) -> None:
    other, foreign = new(), new()
    await open_world.publish(
        open_world.reader(reader_id=other),
        open_world.reader(reader_id=foreign, city_id="rennes"),
    )

    async def is_known() -> bool:
        return bool(
            await open_world.pipe.call("EXISTS", f"reader:{other}", f"reader:{foreign}") == 2
        )

    await until(is_known)
    body = open_world.body("04AABBCCDDEEFF")
    assert problem(await open_world.post(body, key=f"{other}.{SECRET}"))[:2] == (403, "forbidden")
    # Another city's door is as absent as one that never was.
    theirs = await open_world.post(body, key=f"{foreign}.{SECRET}")
    absent = await open_world.post({**body, "door_id": new()})
    assert problem(theirs)[:2] == (404, "not_found")
    assert theirs.content == absent.content
    assert await open_world.stream_length() == 0


BAD_BODIES: list[tuple[bytes, str, tuple[int, str]]] = [
    (b"", "application/json", (400, "malformed_json")),
    (b"{", "application/json", (400, "malformed_json")),
    (b"[" * 10_000, "application/json", (400, "malformed_json")),
    (b'{"tap_id": NaN}', "application/json", (400, "malformed_json")),
    (b"null", "application/json", (422, "invalid")),
    (b" " * 16_385, "application/json", (413, "too_large")),
    (b"{}", "text/plain", (415, "unsupported_media_type")),
    (b"{}", "", (415, "unsupported_media_type")),
]


async def test_bad_bodies_are_refused_and_nothing_is_stored(open_world: World) -> None:
    authorization = f"Bearer {open_world.reader_id}.{SECRET}"
    for content, media, expected in BAD_BODIES:
        headers = {"authorization": authorization, "content-type": media}
        response = await open_world.http.post("/v1/taps", content=content, headers=headers)
        assert problem(response)[:2] == expected, content[:40]
    assert await open_world.stream_length() == 0


async def test_a_tap_of_last_year_or_of_tomorrow_names_its_time(open_world: World) -> None:
    for at in ("2025-11-22T10:00:00Z", (datetime.now(UTC) + timedelta(days=1)).isoformat()):
        response = await open_world.post(open_world.body("04AABBCCDDEEFF", occurred_at=at))
        assert problem(response) == (422, "invalid", ["body.occurred_at"])
    assert await open_world.stream_length() == 0


async def test_before_the_projection_is_complete_nothing_is_decided(world: World) -> None:
    response = await world.post(world.body("04AABBCCDDEEFF"))
    assert problem(response)[:2] == (503, "not_ready")
    assert response.headers["retry-after"] == "1"
    ready = await world.http.get("/readyz")
    assert (ready.status_code, ready.json()["missing"]) == (503, ["projection"])


# --- batches --------------------------------------------------------------------------------------


async def post_batch(world: World, taps: list[Any], key: str | None = None) -> Any:
    headers = {"authorization": f"Bearer {key or f'{world.reader_id}.{SECRET}'}"}
    return await world.http.post("/v1/taps/batch", json={"taps": taps}, headers=headers)


async def test_a_batch_answers_each_tap_for_itself(open_world: World) -> None:
    anne = Person()
    await known(open_world, anne)
    at = (datetime.now(UTC) - timedelta(minutes=20)).isoformat()
    good = open_world.body(anne.uid, mode="replay", occurred_at=at)
    bad = {**open_world.body(anne.uid), "credential": {"type": "uid", "uid": "?"}}
    live = open_world.body(anne.uid)
    response = await post_batch(open_world, [good, bad, live, 7])
    assert response.status_code == 200
    first, second, third, fourth = response.json()["answers"]
    assert first["answer"]["reason"] == "network_member"
    assert first["answer"]["unlock_ms"] == 0
    assert first["problem"] is None
    assert second["problem"]["errors"][0]["field"] == "body.taps.1.credential.uid"
    assert third["problem"]["errors"][0]["field"] == "body.taps.2.mode"
    assert fourth["problem"]["errors"][0]["field"] == "body.taps.3"
    again = await post_batch(open_world, [good])
    assert again.json()["answers"] == [first]
    presence = await open_world.http.get(
        f"/v1/places/{open_world.place_id}/presence", headers=STEWARD
    )
    assert presence.json()["inside"] == 0
    assert await open_world.stream_length() == 1


async def test_a_batch_is_bounded_and_needs_a_key(open_world: World) -> None:
    taps = [open_world.body("04AABBCCDDEEFF", mode="replay")] * 501
    assert (await post_batch(open_world, taps)).status_code == 422
    assert (await post_batch(open_world, [])).status_code == 422
    bad_key = f"{open_world.reader_id}.{'x' * 32}"
    assert (await post_batch(open_world, taps[:1], bad_key)).status_code == 401
    assert await open_world.stream_length() == 0


# --- lockdown and presence ------------------------------------------------------------------------


async def lock(world: World, active: bool, headers: dict[str, str], key: str) -> Any:
    return await world.http.put(
        f"/v1/places/{world.place_id}/lockdown",
        json={"active": active, "reason": "fuite de gaz"},
        headers={**headers, "idempotency-key": key},
    )


async def test_a_lockdown_keeps_visitors_out_until_it_is_lifted(open_world: World) -> None:
    anne = Person()
    await known(open_world, anne)
    answer = await lock(open_world, True, STEWARD, "one")
    assert answer.status_code == 200
    assert answer.json()["active"] is True
    assert await open_world.reason(anne.uid) == "place_locked_down"
    assert await open_world.reason(anne.uid, direction="out") == "exit"
    assert (await lock(open_world, False, STEWARD, "two")).json()["version"] == 2
    assert await open_world.reason(anne.uid) == "network_member"
    # The first request, sent again, must not close the place again.
    assert (await lock(open_world, True, STEWARD, "one")).json() == answer.json()
    assert await open_world.reason(anne.uid) == "network_member"


async def test_who_may_lock_down_and_see_presence(open_world: World) -> None:
    member = {"authorization": f"Bearer {new()}:nantes:member"}
    admin = {"authorization": f"Bearer {new()}::federation_admin"}
    presence = f"/v1/places/{open_world.place_id}/presence"
    assert (await lock(open_world, True, STRANGER, "k1")).status_code == 404
    assert (await lock(open_world, True, member, "k2")).status_code == 403
    assert (await lock(open_world, True, admin, "k3")).status_code == 200
    assert (await open_world.http.get(presence, headers=STRANGER)).status_code == 404
    assert (await open_world.http.get(presence, headers=member)).status_code == 403
    assert (await open_world.http.get(presence)).status_code == 401
    absent = await open_world.http.get(f"/v1/places/{new()}/presence", headers=STEWARD)
    assert absent.status_code == 404
    no_key = await open_world.http.put(
        f"/v1/places/{open_world.place_id}/lockdown",
        json={"active": True, "reason": "x"},
        headers=STEWARD,
    )
    assert problem(no_key)[:2] == (400, "idempotency_key_missing")
