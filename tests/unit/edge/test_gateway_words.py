"""What each make of reader says, and what the gateway makes of it."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uhppoted import decode

from copass_edge.gateway import acnode, esprfid, fabman, fabomatic, uhppote
from copass_edge.gateway.rates import Rate
from copass_edge.gateway.settings import Secret
from copass_edge.gateway.swipes import (
    Point,
    Swipe,
    Swipes,
    Verdict,
    read_answer,
    tap_id_of,
    without_access,
)
from copass_edge.gateway.wiegand import CardFormat, card_number, numbers_of, uid_of_number
from copass_tap.credentials import normalise_uid

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DOOR = "11111111-1111-4111-8111-111111111111"
POINT = Point("door", DOOR, Secret("key"))
EXIT = Point("exit", DOOR, Secret("key"), "out")
YES = Verdict(True, "network_member", "Bienvenue.", "Welcome.", "d1")
STAFF = Verdict(True, "staff", "Bonjour.", "Hello.", "d2")
NO = without_access("in", "access_unreachable")
UIDS = st.sampled_from([4, 7, 10]).flatmap(
    lambda size: st.binary(min_size=size, max_size=size).map(lambda raw: raw.hex().upper())
)
CARDS = UIDS.filter(lambda uid: normalise_uid(uid) == uid)


# --- what access answers -------------------------------------------------------------------------

GRANT: dict[str, Any] = {
    "decision": "grant",
    "reason": "network_member",
    "unlock_ms": 3000,
    "message": {"fr": "Bienvenue.", "en": "Welcome."},
    "decision_id": "d1",
    "expires_at": "2026-11-22T12:00:10+00:00",
    "policy_version": 1,
}


def swipe(point: Point = POINT, mode: Any = "live") -> Swipe:
    return Swipe(point, "04A2B1C3D4E5F6", "t", NOW, mode)


def test_only_a_grant_to_the_letter_opens() -> None:
    assert read_answer(swipe(), 200, json.dumps(GRANT).encode()).granted
    spoilt: list[tuple[int, Any]] = [
        (201, GRANT),
        (200, {**GRANT, "decision": "deny"}),
        (200, {**GRANT, "decision": "GRANT"}),
        (200, {**GRANT, "unlock_ms": 0}),
        (200, {key: value for key, value in GRANT.items() if key != "decision_id"}),
        (200, [GRANT]),
        (200, None),
        (401, GRANT),
        (503, GRANT),
    ]
    for status, document in spoilt:
        verdict = read_answer(swipe(), status, json.dumps(document).encode())
        assert not verdict.granted, (status, document)
    for body in (b"", b"grant", b"[" * 100_000, b"\xff"):
        assert not read_answer(swipe(), 200, body).granted


def test_the_way_out_is_free_when_access_is_away_or_refuses_the_reader() -> None:
    for status in (500, 503, 401, 404):
        assert read_answer(swipe(EXIT), status, b"").granted
        assert not read_answer(swipe(POINT), status, b"").granted


def test_a_card_held_twice_in_a_moment_is_one_swipe() -> None:
    swipes = Swipes()
    first = swipes.of(POINT, "AA", NOW, UUID(int=1))
    assert swipes.of(POINT, "AA", NOW + timedelta(seconds=1), UUID(int=2)) == first
    assert swipes.of(EXIT, "AA", NOW, UUID(int=3)).tap_id != first.tap_id
    assert swipes.of(POINT, "BB", NOW, UUID(int=4)).tap_id != first.tap_id
    assert swipes.of(POINT, "AA", NOW + timedelta(seconds=3), UUID(int=5)).tap_id != first.tap_id
    for number in range(3000):
        swipes.of(POINT, str(number), NOW, UUID(int=6))
    assert swipes.last(POINT, "AA") is None  # bounded
    assert tap_id_of("a", 1) == tap_id_of("a", 1) != tap_id_of("a1")


def test_each_device_has_a_rate_of_its_own() -> None:
    rate = Rate(per_second=2, burst=3)
    assert [rate.allows("loud", 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert rate.allows("quiet", 0.0)
    assert not rate.allows("loud", 0.4)
    assert rate.allows("loud", 0.6)


# --- Fabman --------------------------------------------------------------------------------------


def test_the_keys_of_a_bridge_are_read_strictly() -> None:
    body = b'{"keys":[{"type":"nfca","token":"04A2B1C3"}],"configVersion":0}'
    assert fabman.read_keys(body) == ["04A2B1C3"]
    other = b'{"keys":[{"type":"em4102","token":"0123456789AB"}],"configVersion":0}'
    assert fabman.read_keys(other) == []
    refused = [b"", b"[]", b'{"keys":[]}', b'{"keys":[{"type":"nfca"}]}', b"[" * 100_000]
    refused += [b'{"emailAddress":"a@b.example","configVersion":0}', b'{"keys":[{"token":4}]}']
    for wrong in refused:
        assert fabman.read_keys(wrong) is None, wrong
    assert fabman.is_stop(b'{"stopType":"normal","currentSession":{"id":7}}')
    assert not fabman.is_stop(b'{"stopType":"normal"}')


def test_a_bridge_is_told_in_its_words() -> None:
    allowed = fabman.access_answer(YES, "machine")
    assert allowed["type"] == "allowed"
    assert 0 < allowed["sessionId"] < 2**31
    assert "stopped" not in allowed
    assert fabman.access_answer(YES, "door")["stopped"] is True
    assert fabman.access_answer(NO, "door")["type"] == "denied"


# --- ACNode --------------------------------------------------------------------------------------


def firmware_reads(body: bytes) -> int:
    """As acnode-cl does: strtol over 16 bytes of a buffer that held something before; what is
    negative is kept to a byte."""
    buffer = (body + b"7" * 16)[:16]
    match = re.match(rb"\s*([+-]?[0-9]+)", buffer)
    number = int(match[1]) if match else 0
    return -(-number & 0xFF) if number < 0 else number


def opens(number: int) -> tuple[bool, bool]:
    """Whether the two roles of a door open."""
    return number >= 0, number not in (-1, 0)


def test_an_acnode_understands_every_answer_as_meant() -> None:
    for verdict, expected in ((YES, (True, True)), (STAFF, (True, True)), (NO, (False, False))):
        body, _ = acnode.answer(acnode.status_of(verdict), in_json=False)
        assert opens(firmware_reads(body)) == expected
    # The traps that are avoided: nothing, no line feed, the first line of a chunk, a status 403.
    for trap in (firmware_reads(b""), firmware_reads(b"-1"), firmware_reads(b"3\r\n-1\n"), -403):
        assert any(opens(trap)), trap
    body, media_type = acnode.answer(acnode.NO, in_json=True)
    assert (json.loads(body), media_type) == ({"numeric_status": -1}, "application/json")


def test_an_acnode_asks_by_these_paths_only() -> None:
    question = acnode.read_path("GET", "/7/card/04a2b1c3d4e5f6")
    assert question == acnode.Question("card", 7, uid="04a2b1c3d4e5f6")
    assert acnode.read_path("GET", "/7/status/") == acnode.Question("status", 7)
    assert acnode.read_path("POST", "/7/tooluse/1/04A2B1C3") == acnode.Question("use", 7, value=1)
    assert acnode.read_path("POST", "/7/tooluse/time/for/04A2B1C3/90") is not None
    event = acnode.read_path("POST", "/7/doorevent/1/04A2B1C3")
    assert event == acnode.Question("doorevent", 7, uid="04A2B1C3", value=1)
    refused = [
        ("POST", "/7/card/04A2B1C3"),
        ("GET", "/7/card/"),
        ("GET", "/-7/card/04A2B1C3"),
        ("GET", "/٧/card/04A2B1C3"),
        ("GET", f"/7/card/{'0' * 41}"),
        ("GET", "/7/card/04A2B1C3\n"),
        ("POST", "/7/grant-to-card/04A2B1C3/by-card/04A2B1C4"),
        ("POST", "/7/status/1/by/04A2B1C3"),
    ]
    for method, path in refused:
        assert acnode.read_path(method, path) is None, path


# --- Fab-O-matic ---------------------------------------------------------------------------------


def test_a_boards_questions_are_read_strictly() -> None:
    assert fabomatic.read_query(b'{"action":"checkuser","uid":"AABBCCDD"}') == fabomatic.Query(
        "checkuser", "AABBCCDD"
    )
    use = b'{"action":"stopuse", "uid":"AABBCCDD","duration":60}'
    assert fabomatic.read_query(use) == fabomatic.Query("stopuse", "AABBCCDD", 60)
    alive = b'{"action":"alive","version":"1,2","ip":"10.0.0.2","serial":"ab","heap":"9"}'
    assert fabomatic.read_query(alive) == fabomatic.Query("alive")
    for wrong in (
        b"",
        b"{}",
        b'{"action":"open"}',
        b'{"action":"checkuser"}',
        b'{"action":"checkuser","uid":7}',
        b'{"action":"stopuse","uid":"A","duration":-1}',
        b'{"action":"stopuse","uid":"A","duration":true}',
        b"[" * 100_000,
    ):
        assert fabomatic.read_query(wrong) is None, wrong


def test_a_refusal_never_sends_a_board_to_its_own_cache() -> None:
    refusal = fabomatic.user_reply(NO)
    assert (refusal["request_ok"], refusal["is_valid"], refusal["level"]) == (True, False, 0)
    assert [fabomatic.user_reply(one)["level"] for one in (YES, STAFF)] == [1, 2]


# --- esp-rfid ------------------------------------------------------------------------------------


@given(CARDS)
def test_a_printed_uid_is_read_as_itself_or_not_at_all(uid: str) -> None:
    sizes = [len(uid) // 2]
    text = esprfid.printed(uid, "unpadded")
    assert esprfid.resolve(text, "unpadded", sizes, "", {}) in (uid, "ambiguous")
    assert esprfid.resolve(text, "unpadded", sizes, "", {text: uid}) == uid
    padded = esprfid.printed(uid, "padded")
    assert esprfid.resolve(padded, "padded", sizes, "", {}) == uid


def test_zeros_that_were_dropped_are_put_back_only_where_one_uid_can_be_meant() -> None:
    assert esprfid.printed("041D5A77", "unpadded") == esprfid.printed("410D5A77", "unpadded")
    assert esprfid.resolve("41d5a77", "unpadded", [4], "", {}) == "ambiguous"
    assert esprfid.resolve("41d5a77", "unpadded", [4], "041D", {}) == "041D5A77"
    # NXP's cards of 7 bytes begin with 04, so mostly one zero is missing, and which is known.
    nxp = esprfid.printed("04A2B1C3D4E5F6", "unpadded")
    assert esprfid.resolve(nxp, "unpadded", [7], "04", {}) == "04A2B1C3D4E5F6"
    for wrong in ("", "xyz", "4" * 30, "04 a2", "../../etc", "٤٤٤٤٤٤٤٤"):
        assert esprfid.resolve(wrong, "unpadded", [4, 7], "", {}) == "malformed", wrong
    with pytest.raises(ValueError, match="printed alike"):
        esprfid.printed_uids(["041D5A77", "410D5A77"], "unpadded")


def test_only_cards_that_were_seen_are_events() -> None:
    event = {
        "type": "access",
        "time": 1605991375,
        "isKnown": "true",
        "access": "Always",
        "username": "x",
        "uid": "4a2b1c3",
        "hostname": "front",
    }
    seen = esprfid.read_event(json.dumps(event).encode())
    assert seen == esprfid.Seen("4a2b1c3", 1605991375, True)
    denied = esprfid.read_event(json.dumps({**event, "access": "Denied"}).encode())
    assert denied is not None
    assert not denied.opened
    for change in (
        {"type": "boot"},
        {"type": "heartbeat"},
        {"uid": " "},  # an open command tells so
        {"uid": 7},
        {"time": -1},
        {"time": 2**40},
        {"uid": "f" * 21},
    ):
        assert esprfid.read_event(json.dumps({**event, **change}).encode()) is None, change
    local = int(NOW.timestamp()) + 3600
    assert esprfid.occurred_at(esprfid.Seen("a", local, True), 60, NOW) == NOW
    assert esprfid.occurred_at(esprfid.Seen("a", 12, True), 0, NOW) == NOW


# --- UHPPOTE -------------------------------------------------------------------------------------


def test_card_numbers_and_uids() -> None:
    as_read = CardFormat(34, "as_read", "first")
    assert card_number("64E4205A", CardFormat(26, "as_read", "first")) == 10058400
    assert card_number("64E4205A", as_read) == 0x64E4205A
    assert card_number("64E4205A", CardFormat(34, "reversed", "first")) == 0x5A20E464
    assert card_number("04A2B1C3D4E5F6", CardFormat(34, "as_read", "last")) == 0xC3D4E5F6
    assert uid_of_number(0x64E4205A, as_read) == "64E4205A"
    assert uid_of_number(0x64E4205A, CardFormat(26, "as_read", "first")) is None
    assert uid_of_number(2**32, as_read) is None
    # Two cards that a 26-bit reader shows alike: neither is known by it.
    short = CardFormat(26, "as_read", "first")
    assert numbers_of(["64E4205A", "64E4205B", "11223344"], short) == {
        card_number("11223344", short): "11223344"
    }


@given(CARDS.filter(lambda uid: len(uid) == 8), st.sampled_from(["as_read", "reversed"]))
def test_34_bits_hold_a_uid_of_4_bytes_whole(uid: str, order: Any) -> None:
    form = CardFormat(34, order, "first")
    assert uid_of_number(card_number(uid, form), form) == uid


def event_packet(**changes: int) -> bytes:
    """An event as controllers send it: little-endian numbers, times in decimal digits."""
    packet = bytearray(64)
    packet[0:2] = 0x17, 0x20
    packet[4:8] = (405419896).to_bytes(4, "little")
    packet[8:12] = (77).to_bytes(4, "little")
    packet[12], packet[13] = changes.get("type", 1), changes.get("granted", 0)
    packet[14], packet[15] = changes.get("door", 1), changes.get("direction", 1)
    packet[16:20] = changes.get("card", 10058400).to_bytes(4, "little")
    packet[20:27] = bytes.fromhex("20261122120000")
    packet[27] = changes.get("reason", 5)
    packet[37:40] = bytes([0x12, 0, changes.get("late", 0)])
    packet[51:54] = bytes.fromhex("261122")
    return bytes(packet)


def test_an_event_asks_only_where_the_controller_left_it_to_its_host() -> None:
    held = uhppote.read_event(decode.event(event_packet()))
    assert held is not None
    assert (held.serial, held.door, held.number, held.mode) == (405419896, 1, 10058400, "live")
    assert uhppote.is_fresh(held, timedelta(0))
    assert not uhppote.is_fresh(held, timedelta(seconds=6))
    again = uhppote.read_event(decode.event(event_packet(late=3)))
    assert again is not None
    assert (again.tap_id, again.age) == (held.tap_id, timedelta(seconds=3))
    out = uhppote.read_event(decode.event(event_packet(direction=2)))
    assert out is not None
    assert out.direction == "out"
    known = uhppote.read_event(decode.event(event_packet(granted=1, reason=1)))
    assert known is not None
    assert known.mode == "replay"
    for refused in ({"type": 2}, {"reason": 12}, {"reason": 15}, {"card": 0}, {"door": 5}):
        assert uhppote.read_event(decode.event(event_packet(**refused))) is None, refused
    old = uhppote.read_event(decode.event(event_packet(late=0x09)))
    assert old is not None
    assert not uhppote.is_fresh(old, timedelta(0))
