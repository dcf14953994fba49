"""The body of a tap: what is read, and that every error names its field."""

import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.credentials import CredentialReader
from access.tap_request import read_tap
from common.problems import Problem
from copass_tap import ntag424
from copass_tap.credentials import credential_hash
from copass_tap.ntag424 import KEY_FILE_READ, KeySet, Picc
from copass_tap.passes import PassCode, write_guest, write_pass

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
PEPPER = b"p" * 32
KEYS = KeySet(bytes(16), bytes([7] * 16))
READER = CredentialReader(PEPPER, [KeySet(bytes([9] * 16), bytes(16)), KEYS])
GOOD: dict[str, Any] = {
    "tap_id": "01935000-0000-7000-8000-000000000001",
    "door_id": "01935000-0000-7000-8000-00000000000D",
    "credential": {"type": "uid", "uid": "04:a2:b1:c3:d4:e5:f6"},
    "direction": "in",
    "occurred_at": "2026-11-22T11:00:00.5+01:00",
    "mode": "live",
}


def problem_of(body: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        read_tap(body, reader=READER, now=NOW)
    return caught.value


def fields_of(body: dict[str, Any]) -> list[str]:
    problem = problem_of(json.dumps(body).encode())
    assert problem.status == 422
    return [error.field for error in problem.errors]


def test_a_good_body_becomes_a_tap() -> None:
    tap = read_tap(json.dumps(GOOD).encode(), reader=READER, now=NOW)
    assert tap.tap_id == GOOD["tap_id"]
    assert tap.door_id == GOOD["door_id"].lower()
    assert tap.credential_hash == credential_hash(PEPPER, "uid", "04A2B1C3D4E5F6")
    assert tap.occurred_at == NOW + timedelta(milliseconds=500)
    assert tap.counter is None


def test_a_phone_and_a_guest_are_known_by_what_they_show() -> None:
    card_id = "019365a0-0000-7000-8000-00000000c0de"
    text = write_pass(PassCode(card_id, 59_000_000, bytes(64)))
    body = {**GOOD, "credential": {"type": "pass", "code": text.lower()}}
    tap = read_tap(json.dumps(body).encode(), reader=READER, now=NOW)
    assert tap.credential_hash == credential_hash(PEPPER, "pass", card_id)
    assert tap.code == PassCode(card_id, 59_000_000, bytes(64))
    body = {**GOOD, "credential": {"type": "guest", "code": write_guest(b"\x01" * 16)}}
    tap = read_tap(json.dumps(body).encode(), reader=READER, now=NOW)
    assert tap.credential_hash == credential_hash(PEPPER, "guest", "AEAQCAIBAEAQCAIBAEAQCAIBAE")
    twice = json.dumps(body).replace('"code"', '"code": "CG1.", "code"')
    assert problem_of(twice.encode()).status == 400


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tap_id": "1"}, "body.tap_id"),
        ({"tap_id": 1}, "body.tap_id"),
        ({"door_id": None}, "body.door_id"),
        ({"door_id": GOOD["door_id"] + "\n"}, "body.door_id"),
        ({"direction": "sideways"}, "body.direction"),
        ({"direction": []}, "body.direction"),
        ({"mode": "LIVE"}, "body.mode"),
        ({"mode": {}}, "body.mode"),
        ({"occurred_at": "yesterday"}, "body.occurred_at"),
        ({"occurred_at": "2026-11-22T10:00:00"}, "body.occurred_at"),
        ({"occurred_at": "2026-02-30T10:00:00Z"}, "body.occurred_at"),
        ({"occurred_at": "2026-11-22T10:00:00+99:00"}, "body.occurred_at"),
        ({"occurred_at": "0001-01-01T00:00:00+14:00"}, "body.occurred_at"),
        ({"occurred_at": "2026-W47-7T10:00:00Z"}, "body.occurred_at"),
        ({"occurred_at": "2026-11-22T10:02:01Z"}, "body.occurred_at"),
        ({"occurred_at": "2025-11-22T10:00:00Z"}, "body.occurred_at"),
        ({"occurred_at": 1795334400}, "body.occurred_at"),
        ({"credential": None}, "body.credential"),
        ({"credential": "04A2B1C3"}, "body.credential"),
        ({"credential": {}}, "body.credential.type"),
        ({"credential": {"type": "uid"}}, "body.credential.uid"),
        ({"credential": {"type": "pass"}}, "body.credential.code"),
        ({"credential": {"type": "pass", "code": None}}, "body.credential.code"),
        ({"credential": {"type": "pass", "code": "CP1."}}, "body.credential.code"),
        ({"credential": {"type": "pass", "code": "CP1." + "1" * 135}}, "body.credential.code"),
        ({"credential": {"type": "pass", "code": "CP1." + "A" * 136}}, "body.credential.code"),
        ({"credential": {"type": "pass", "code": "CP1." + "é" * 135}}, "body.credential.code"),
        ({"credential": {"type": "pass", "code": "CG1." + "A" * 26}}, "body.credential.code"),
        ({"credential": {"type": "pass", "uid": "04A2B1C3"}}, "body.credential.code"),
        ({"credential": {"type": "guest", "code": "CP1." + "A" * 135}}, "body.credential.code"),
        (
            {"credential": {"type": "guest", "code": "CG1." + "A" * 25 + "B"}},
            "body.credential.code",
        ),
        ({"credential": {"type": "guest", "code": 7}}, "body.credential.code"),
        ({"credential": {"type": "iris", "uid": "04A2B1C3"}}, "body.credential.type"),
        ({"credential": {"type": ["uid"], "uid": "04A2B1C3"}}, "body.credential.type"),
        ({"credential": {"type": "uid", "uid": "04A2B1C"}}, "body.credential.uid"),
        ({"credential": {"type": "uid", "uid": 4}}, "body.credential.uid"),
        ({"credential": {"type": "uid", "uid": "04A2B1C3", "pin": "1"}}, "body.credential.pin"),
        ({"member_id": "me"}, "body.member_id"),
    ],
)
def test_a_bad_field_is_named(changes: dict[str, Any], field: str) -> None:
    assert field in fields_of({**GOOD, **changes})


def test_all_bad_fields_are_named_at_once() -> None:
    bad = {**GOOD, "tap_id": "x", "direction": "up", "mode": "maybe"}
    assert fields_of(bad) == ["body.tap_id", "body.direction", "body.mode"]


@pytest.mark.parametrize("name", list(GOOD))
def test_a_missing_field_is_named(name: str) -> None:
    assert fields_of({key: value for key, value in GOOD.items() if key != name}) == [f"body.{name}"]


@pytest.mark.parametrize("value", [None, [], "tap", 1, True])
def test_a_body_that_is_no_object_is_refused(value: Any) -> None:
    assert problem_of(json.dumps(value).encode()).status == 422


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"NaN",
        b'{"tap_id": NaN}',
        b"[" * 8000,
        b'{"a":' * 2000,
        json.dumps(GOOD)[:-1].encode() + b', "mode": "live"}',
        json.dumps(GOOD).replace('"uid": "04', '"uid": "0", "uid": "04').encode(),
    ],
)
def test_what_is_no_strict_json_is_refused(body: bytes) -> None:
    problem = problem_of(body)
    assert (problem.status, problem.code) == (400, "malformed_json")


def test_a_strange_field_name_comes_back_printable() -> None:
    (field,) = fields_of({**GOOD, "\u202e\x1b[31m" + "x" * 100: 1})
    assert field.isascii()
    assert field.isprintable()
    assert len(field) < 100


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_value_is_a_tap_or_a_problem(value: Any) -> None:
    for body in (value, {**GOOD, "credential": value}, {**GOOD, "occurred_at": value}):
        with contextlib.suppress(Problem):  # anything else fails the test
            read_tap(json.dumps(body).encode(), reader=READER, now=NOW)


CARD = bytes.fromhex("04DE5F1EACC040")


def message(counter: int, keys: KeySet = KEYS) -> dict[str, str]:
    """What the card writes at its reading number `counter`."""
    plain = b"\xc7" + CARD + counter.to_bytes(3, "little") + b"noise"
    mac = ntag424.session_mac(keys.key_of(CARD, KEY_FILE_READ), Picc(CARD, counter))
    picc_data = ntag424.encrypt(keys.meta, plain)
    return {"type": "ntag424", "picc_data": picc_data.hex(), "mac": mac.hex().upper()}


def test_a_card_of_the_network_is_known_by_its_uid_and_counts() -> None:
    body = {**GOOD, "credential": message(61)}
    tap = read_tap(json.dumps(body).encode(), reader=READER, now=NOW)
    assert (tap.credential_type, tap.counter) == ("ntag424", 61)
    assert tap.credential_hash == credential_hash(PEPPER, "ntag424", "04DE5F1EACC040")


@pytest.mark.parametrize("keys", [KeySet(bytes(16), bytes([8] * 16)), KeySet(b"m" * 16, b"n" * 16)])
def test_a_card_of_another_network_is_a_card_that_nobody_knows(keys: KeySet) -> None:
    """With our meta key or with its own: it is tapped, decided and recorded, and has no counter."""
    body = {**GOOD, "credential": message(61, keys)}
    tap = read_tap(json.dumps(body).encode(), reader=READER, now=NOW)
    assert tap.counter is None
    assert tap.credential_hash != credential_hash(PEPPER, "ntag424", "04DE5F1EACC040")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"picc_data": "00"}, "body.credential.picc_data"),
        ({"picc_data": "zz" * 16}, "body.credential.picc_data"),
        ({"picc_data": 1}, "body.credential.picc_data"),
        ({"mac": "00" * 9}, "body.credential.mac"),
        ({"mac": None}, "body.credential.mac"),
        ({"mac": "٠" * 16}, "body.credential.mac"),
        ({"uid": "04DE5F1EACC040"}, "body.credential.uid"),
        ({"type": "iris"}, "body.credential.type"),
        ({"type": ["ntag424"]}, "body.credential.type"),
    ],
)
def test_a_malformed_message_names_its_field(changes: dict[str, Any], field: str) -> None:
    assert fields_of({**GOOD, "credential": {**message(61), **changes}}) == [field]


def test_a_field_of_a_message_given_twice_is_refused() -> None:
    text = json.dumps({**GOOD, "credential": message(61)})
    twice = text.replace('"mac"', '"mac": "0000000000000000", "mac"')
    assert problem_of(twice.encode()).code == "malformed_json"
