"""Forged messages of cards go the way of a tap, from the body of the request to the decision."""

import os
import random
from datetime import UTC, datetime
from typing import Any

import orjson

from access.credentials import CredentialReader
from access.tap_request import read_tap
from common.problems import Problem
from copass_tap import ntag424
from copass_tap.decision import Card, Door, Facts, Member, decide
from copass_tap.ntag424 import KEY_FILE_READ, KeySet, Picc

FORGERIES = int(os.environ.get("ACCESS_FORGERIES", "2000"))
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
AT = int(NOW.timestamp())
KEYS = KeySet(bytes(range(16)), bytes(range(16, 32)))
READER = CredentialReader(b"p" * 32, [KEYS])
UID = bytes.fromhex("04DE5F1EACC040")
DOOR = Door(
    door_id="door",
    place_id="place",
    city_id="nantes",
    version=1,
    place_status="in_network",
    capacity=None,
    anti_passback="off",
    expires_at=AT + 1,
    kind="public",
    min_assurance=2,
    unlock_ms=3000,
    publics=frozenset({"network"}),
    open_from=(AT,),
    open_until=(AT + 1,),
    readers=frozenset(),
)
COUNTER = 4711


def message(counter: int) -> dict[str, str]:
    """What the card of UID writes at its reading number `counter`."""
    plain = b"\xc7" + UID + counter.to_bytes(3, "little") + b"noise"
    mac = ntag424.session_mac(KEYS.key_of(UID, KEY_FILE_READ), Picc(UID, counter))
    return {"picc_data": ntag424.encrypt(KEYS.meta, plain).hex(), "mac": mac.hex()}


def reason_of(known_hash: str, credential: dict[str, Any]) -> str:
    """What a tap of this credential is answered, where the holder of one card may enter."""
    body = {
        "tap_id": "019365a0-0000-7000-8000-000000000001",
        "door_id": "019365a0-0000-7000-8000-000000000002",
        "credential": {"type": "ntag424", **credential},
        "direction": "in",
        "occurred_at": NOW.isoformat(),
        "mode": "live",
    }
    try:
        tap = read_tap(orjson.dumps(body), reader=READER, now=NOW)
    except Problem as problem:
        return problem.code
    is_known = tap.credential_hash == known_hash
    facts = Facts(
        door=DOOR,
        card=Card("card", "member", "active", COUNTER) if is_known else None,
        member=Member("member", "active", None, "good") if is_known else None,
        locked_down=False,
        people_inside=0,
        is_inside=False,
    )
    return decide(facts, tap, NOW).reason


def mutated(chance: random.Random, text: str) -> str:
    """One or two digits changed to others; now and then cut, doubled or not of the alphabet."""
    digits = list(text)
    for at in chance.sample(range(len(digits)), chance.choice((1, 1, 2))):
        digits[at] = chance.choice([digit for digit in "0123456789abcdef" if digit != digits[at]])
    whole = "".join(digits)
    return chance.choice((whole,) * 20 + (whole[:-1], whole * 2, "g" + whole[1:], ""))


def test_no_random_or_mutated_message_is_ever_granted() -> None:
    chance = random.Random(4711)
    honest = message(COUNTER + 1)
    known = READER.read({"type": "ntag424", **honest}, "credential", [])
    assert known is not None
    assert reason_of(known.hash, honest) == "network_member"
    assert reason_of(known.hash, message(COUNTER)) == "credential_replayed"
    seen: set[str] = set()
    for number in range(FORGERIES):
        forged = message(chance.randrange(2**24)) if number % 2 else dict(honest)
        if number % 4 < 2:
            name = chance.choice(("picc_data", "mac"))
            forged[name] = mutated(chance, forged[name])
        elif number % 4 == 2:
            forged = {"picc_data": chance.randbytes(16).hex(), "mac": chance.randbytes(8).hex()}
        else:  # the two halves of different messages
            forged["mac"] = honest["mac"]
        reason = reason_of(known.hash, forged)
        seen.add(reason)
        assert reason in ("unknown_credential", "invalid"), forged
    assert seen == {"unknown_credential", "invalid"}
