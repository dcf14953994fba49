"""What a reader decides from while it is alone: the snapshot of a door, and what changed since.

Both are *signed papers*: a first line that says what it is, a line with the base64 of the Ed25519
signature over that line and all that follows, and the content. What a snapshot has of a card is 30
bytes, sorted by name, so that a million cards are 30 MB and are found without being read: the
first 16 bytes of the credential's hash, the first 8 of the SHA-256 of the member's id, 2 of what
matters at this door, 4 of the highest counter seen. Pure. This module needs `cryptography`.
"""

import base64
import binascii
import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from copass_tap.decision import Relation

SNAPSHOT = b"copass snapshot v1\n"
CHANGES = b"copass changes v1\n"
SIGNATURE_BYTES = 64
SIGNATURE_LINE = 88 + 1  # base64 of the signature, and the end of the line

NAME_BYTES, MEMBER_BYTES, CODE_BYTES, COUNTER_BYTES = 16, 8, 2, 4
ENTRY_BYTES = NAME_BYTES + MEMBER_BYTES + CODE_BYTES + COUNTER_BYTES
NO_COUNTER = 0xFFFFFFFF

# The code of a card at a door, by bits: what no longer has a word here is read as the one that
# opens least.
CARD_STATUS = ("active", "blocked", "replaced", "blocked")
MEMBER_STATUS = ("active", "suspended", "erased", "suspended")
RELATION: Sequence[Relation | None] = (
    None,
    "resident",
    "staff",
    "warden",
    "keyholder",
    *[None] * 3,
)
STANDING: Sequence[str | None] = (None, "good", "grace", "lapsed", "exempt", *["lapsed"] * 3)


class BadPaper(ValueError):
    """A snapshot or a list of changes that is not what it says, or not signed by whom it must."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a snapshot says of one card. `member` is the short name of its member."""

    member: bytes
    card_status: str
    member_status: str
    relation: Relation | None
    standing: str | None
    last_counter: int | None


@dataclass(frozen=True, slots=True)
class Header:
    """What a snapshot says of its door. Times are epoch seconds.

    `sequence`: how far the changes are in it. `expires_at`: until when it speaks for visitors,
    `household_expires_at` for residents and staff. `policy` is the document of documents.py.
    `is_complete`: no card that may enter had to be left out. `sealed`: base64 of what only this
    reader can open (offline secrets). `digest`: SHA-256 of all that follows the header, in hex.
    """

    door_id: str
    place_id: str
    reader_id: str
    sequence: int
    issued_at: int
    expires_at: int
    household_expires_at: int
    policy_version: int
    policy: Mapping[str, Any]
    is_locked_down: bool
    is_complete: bool
    cards: int
    sealed: str
    digest: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that was checked. `extras`: what phone and guest passes have besides, by the
    hexadecimal name of their credential: the fields of `copass_tap.decision.Card`."""

    header: Header
    entries: bytes
    extras: Mapping[str, Mapping[str, Any]]

    def find(self, credential_hash: str) -> Entry | None:
        """What is known of a credential, by the hexadecimal digits of its hash."""
        name = credential_name(credential_hash)
        names = _Names(self.entries)
        at = bisect_left(names, name)
        if at == len(names) or names[at] != name:
            return None
        return read_entry(self.entries[at * ENTRY_BYTES : (at + 1) * ENTRY_BYTES])


class _Names(Sequence[bytes]):
    """The names in the entries, without a list of them."""

    def __init__(self, entries: bytes) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries) // ENTRY_BYTES

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._entries[index * ENTRY_BYTES : index * ENTRY_BYTES + NAME_BYTES]


def credential_name(credential_hash: str) -> bytes:
    """The 16 bytes by which a snapshot knows a credential."""
    return bytes.fromhex(credential_hash)[:NAME_BYTES]


def member_name(member_id: str) -> bytes:
    """The 8 bytes by which a snapshot knows a member."""
    return hashlib.sha256(member_id.encode()).digest()[:MEMBER_BYTES]


def read_entry(raw: bytes) -> Entry:
    code = int.from_bytes(raw[24:26])
    counter = int.from_bytes(raw[26:30])
    return Entry(
        member=raw[NAME_BYTES : NAME_BYTES + MEMBER_BYTES],
        card_status=CARD_STATUS[code & 3],
        member_status=MEMBER_STATUS[code >> 2 & 3],
        relation=RELATION[code >> 4 & 7],
        standing=STANDING[code >> 7 & 7],
        last_counter=None if counter == NO_COUNTER else counter,
    )


def write_snapshot(
    header: Mapping[str, Any],
    entries: bytes,
    extras: Mapping[str, Mapping[str, Any]],
    sign: Callable[[bytes], bytes],
) -> bytes:
    """A snapshot as it travels. `header` has all fields of Header but `cards` and `digest`;
    `entries` are sorted."""
    content = entries + json.dumps(extras, separators=(",", ":")).encode()
    whole = {
        **header,
        "cards": len(entries) // ENTRY_BYTES,
        "digest": hashlib.sha256(content).hexdigest(),
    }
    first = json.dumps(whole, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
    return write_paper(SNAPSHOT, first, sign) + content


def read_snapshot(raw: bytes, key: Ed25519PublicKey) -> Snapshot:
    """Check and read a snapshot. Raises BadPaper."""
    first_end = raw.find(b"\n", len(SNAPSHOT) + SIGNATURE_LINE) + 1
    first = read_paper(SNAPSHOT, raw[:first_end], key)
    content = raw[first_end:]
    try:
        values = json.loads(first)
        header = Header(**{field.name: values[field.name] for field in fields(Header)})
        size = header.cards * ENTRY_BYTES
        if hashlib.sha256(content).hexdigest() != header.digest or size > len(content):
            raise BadPaper("the cards are not those that were signed")
        return Snapshot(header, content[:size], json.loads(content[size:]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadPaper(f"no snapshot: {error}") from None


def write_paper(kind: bytes, content: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    return kind + base64.b64encode(sign(kind + content)) + b"\n" + content


def read_paper(kind: bytes, raw: bytes, key: Ed25519PublicKey) -> bytes:
    """The content of a signed paper. Raises BadPaper for another kind, or another signer."""
    line_end = len(kind) + SIGNATURE_LINE
    if not raw.startswith(kind) or raw[line_end - 1 : line_end] != b"\n":
        raise BadPaper(f"this is no {kind.decode().strip()}")
    try:
        signature = base64.b64decode(raw[len(kind) : line_end - 1], validate=True)
        key.verify(signature, kind + raw[line_end:])
    except (binascii.Error, ValueError, InvalidSignature):
        raise BadPaper("the signature is not that of the service that this reader trusts") from None
    return raw[line_end:]
