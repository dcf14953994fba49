"""Snapshots of a door as a service of ours would write them."""

import base64
import hashlib
import json
import os
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.sealing import Sealer, derive_key
from copass_edge.reader.config import Config
from copass_edge.reader.papers import OFFLINE_SECRETS
from copass_tap.credentials import credential_hash
from copass_tap.snapshots import CHANGES, member_name, write_paper, write_snapshot

KEY = Ed25519PrivateKey.generate()
OTHER_KEY = Ed25519PrivateKey.generate()
SECRET = "s" * 43
PEPPER = "p" * 32
META = bytes(16)
DOOR = "01a20000-0000-7000-8000-000000000001"
READER = "01a20000-0000-7000-8000-000000000002"
PLACE = "01a20000-0000-7000-8000-000000000003"
ISSUED = 1_800_000_000
HOUR = 3600

CONFIG = Config(
    url="http://127.0.0.1:9",
    reader_id=READER,
    secret=SECRET,
    door_id=DOOR,
    snapshot_key=KEY.public_key().public_bytes_raw().hex(),
)

POLICY: dict[str, Any] = {
    "city_id": "nantes",
    "status": "in_network",
    "capacity": None,
    "anti_passback": "off",
    "expires_at": ISSUED + 14 * 24 * HOUR,
    "kind": "public",
    "min_assurance": 1,
    "unlock_ms": 3000,
    "publics": ["network"],
    "open": [[ISSUED - 24 * HOUR, ISSUED + 7 * 24 * HOUR]],
    "readers": [READER],
}
RELATIONS = (None, "resident", "staff", "warden", "keyholder")
STANDINGS = (None, "good", "grace", "lapsed", "exempt")


def entry(
    credential: str,
    kind: str = "uid",
    *,
    card: int = 0,
    member: str = "",
    status: int = 0,
    relation: str | None = None,
    standing: str | None = "good",
    counter: int | None = None,
) -> bytes:
    """A card by what it is: its UID, the id of a phone's card."""
    named = credential_hash(PEPPER.encode(), kind, credential)
    code = card | status << 2 | RELATIONS.index(relation) << 4 | STANDINGS.index(standing) << 7
    return (
        bytes.fromhex(named)[:16]
        + member_name(member or credential)
        + code.to_bytes(2)
        + (0xFFFFFFFF if counter is None else counter).to_bytes(4)
    )


def sealed() -> str:
    content = json.dumps({"pepper": PEPPER, "meta": [META.hex()]}).encode()
    sealer = Sealer(derive_key(SECRET, OFFLINE_SECRETS))
    return base64.b64encode(sealer.seal(content, name=OFFLINE_SECRETS)).decode()


def snapshot(
    *entries: bytes,
    key: Ed25519PrivateKey = KEY,
    extras: dict[str, dict[str, Any]] | None = None,
    policy: dict[str, Any] | None = None,
    **header: Any,
) -> bytes:
    issued_at = header.get("issued_at", ISSUED)
    values = {
        "door_id": DOOR,
        "place_id": PLACE,
        "reader_id": READER,
        "sequence": 10,
        "issued_at": issued_at,
        "expires_at": issued_at + 8 * HOUR,
        "household_expires_at": issued_at + 72 * HOUR,
        "policy_version": 1,
        "policy": {**POLICY, **(policy or {})},
        "is_locked_down": False,
        "is_complete": True,
        "sealed": sealed(),
        **header,
    }
    return write_snapshot(values, b"".join(sorted(entries)), extras or {}, key.sign)


def changes(*, key: Ed25519PrivateKey = KEY, **fields: Any) -> bytes:
    values = {
        "door_id": DOOR,
        "reader_id": READER,
        "after": 10,
        "sequence": 11,
        "is_more": False,
        "is_locked_down": False,
        "policy_version": 1,
        "cards": [],
        "members": [],
        "is_news": True,
        "issued_at": ISSUED,
        **fields,
    }
    return write_paper(CHANGES, json.dumps(values).encode(), key.sign)


def noise(seed: int) -> bytes:
    return hashlib.sha256(str(seed).encode()).digest() + os.urandom(8)
