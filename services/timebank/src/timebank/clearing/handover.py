"""How a city's key is handed over: the statement that the old and the new one sign. Pure.

The form, and what a verifier makes of it: docs/decisions/timebank-key-rotation.md.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copass_verify.merkle import SIZE_MAX
from copass_verify.notes import Signer, Verifier, WrongNote, format_note, open_note, to_verifier
from timebank.log.domain import origin_of

HEADER = "copass key handover v1"
KEYS_MAX = 100
STATEMENT_MAX = 2000
# Four thousand years: what a database and a calendar can still hold.
UNTIL_MAX = 2**36
KEY = re.compile(r"[0-9a-f]{64}")
NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")


class WrongKeys(ValueError):
    """What was told is no list of keys of the city; the message says why."""


@dataclass(frozen=True, slots=True)
class Handover:
    """That key `number` follows the one before: it signs the checkpoints from `from_size` entries
    on, and messages under the old one are believed until then."""

    number: int
    old_key: bytes
    new_key: bytes
    from_size: int
    until: datetime
    statement: str


@dataclass(frozen=True, slots=True)
class Chain:
    """All keys of a city, from the first on."""

    first_key: bytes
    handovers: tuple[Handover, ...] = ()

    @property
    def newest(self) -> bytes:
        return self.handovers[-1].new_key if self.handovers else self.first_key

    @property
    def keys(self) -> tuple[bytes, ...]:
        return (self.first_key, *(each.new_key for each in self.handovers))

    def up_to(self, key: bytes) -> "Chain":
        """The chain as far as a key that somebody pinned; that key alone when it is not in it."""
        if key not in self.keys:
            return Chain(key)
        return Chain(self.first_key, self.handovers[: self.keys.index(key)])

    def key_at(self, size: int) -> bytes:
        """The key that signs the checkpoint of this many entries."""
        begun = [each.new_key for each in self.handovers if each.from_size <= size]
        return begun[-1] if begun else self.first_key

    def believed(self, now: datetime, sent_at: datetime) -> list[bytes]:
        """The keys under which a message of `sent_at` is believed when it is heard now."""
        latest = max(now, sent_at)
        earlier = [each.old_key for each in self.handovers if latest <= each.until]
        return [self.newest, *earlier]

    def goes_on_from(self, known: "Chain") -> bool:
        """Whether this is the known chain, or that with more keys after it."""
        count = len(known.keys)
        return self.keys[:count] == known.keys and self.sizes[: count - 1] == known.sizes

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(each.from_size for each in self.handovers)

    def listed(self) -> list[dict[str, Any]]:
        """As it is published."""
        later = [
            {
                "public_key": each.new_key.hex(),
                "from_size": each.from_size,
                "statement": each.statement,
            }
            for each in self.handovers
        ]
        return [{"public_key": self.first_key.hex(), "from_size": 0, "statement": None}, *later]


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def hand_over(
    city_id: str,
    chain: Chain,
    old: Ed25519PrivateKey,
    new: Ed25519PrivateKey,
    *,
    from_size: int,
    until: datetime,
) -> Handover:
    """The statement by which the newest key of the chain hands over; both sign it.

    Raises WrongKeys when `old` is not that key, or there are too many.
    """
    if public(old) != chain.newest:
        raise WrongKeys("the key at hand is not the city's newest")
    if len(chain.keys) >= KEYS_MAX:
        raise WrongKeys(f"a city has {KEYS_MAX} keys at most")
    number = len(chain.keys) + 1
    name = origin_of(city_id)
    # Never before the instant meant: what was signed in that very second was signed in time.
    seconds = math.ceil(until.timestamp())
    text = write_text(city_id, number, public(old), public(new), from_size, seconds)
    signed = [Signer(to_verifier(name, public(key)), key).sign(text) for key in (old, new)]
    at = datetime.fromtimestamp(seconds, UTC)
    return Handover(number, public(old), public(new), from_size, at, format_note(text, signed))


def write_text(
    city_id: str, number: int, old_key: bytes, new_key: bytes, from_size: int, until: int
) -> str:
    lines = (
        HEADER,
        origin_of(city_id),
        f"number {number}",
        f"old {old_key.hex()}",
        f"new {new_key.hex()}",
        f"size {from_size}",
        f"until {until}",
    )
    return "".join(f"{line}\n" for line in lines)


def read_handover(
    city_id: str, number: int, old_key: bytes, new_key: bytes, from_size: int, statement: str
) -> Handover:
    """A statement that says just this and is signed by both keys. Raises WrongKeys."""
    name = origin_of(city_id)
    both = [to_verifier(name, key) for key in (old_key, new_key)]
    if len(statement) > STATEMENT_MAX:
        raise WrongKeys("a statement is too long")
    until = until_of(statement)
    try:
        note = open_note(statement.encode(), both)
    except (WrongNote, UnicodeEncodeError) as error:
        raise WrongKeys(f"the statement for key {number}: {error}") from error
    if note.text != write_text(city_id, number, old_key, new_key, from_size, until):
        raise WrongKeys(f"the statement for key {number} says something else")
    if signers(note.signatures) != set(both):
        raise WrongKeys(f"the statement for key {number} is not signed by both keys")
    at = datetime.fromtimestamp(until, UTC)
    return Handover(number, old_key, new_key, from_size, at, statement)


def signers(signatures: Sequence[Any]) -> set[Verifier]:
    return {each.verifier for each in signatures}


def until_of(statement: str) -> int:
    for line in statement.splitlines():
        name, _, value = line.partition(" ")
        if name == "until" and NUMBER.fullmatch(value) and int(value) <= UNTIL_MAX:
            return int(value)
    raise WrongKeys("a statement does not say until when the old key is believed")


def read_chain(city_id: str, listed: Sequence[Mapping[str, Any]]) -> Chain:
    """A list of keys as it is published, each handed over by the one before. Raises WrongKeys."""
    if not 1 <= len(listed) <= KEYS_MAX:
        raise WrongKeys(f"a city has 1 to {KEYS_MAX} keys")
    first, *later = listed
    if first.get("from_size") != 0 or first.get("statement") is not None:
        raise WrongKeys("the first key is handed over by nobody, and signs from 0 on")
    keys = [read_key(each.get("public_key")) for each in listed]
    if len(set(keys)) != len(keys):
        raise WrongKeys("a key comes back")
    handovers: list[Handover] = []
    size_before = 0
    for number, item in enumerate(later, start=2):
        size, statement = item.get("from_size"), item.get("statement")
        if type(size) is not int or not max(size_before, 1) <= size <= SIZE_MAX:
            raise WrongKeys(f"the size from which key {number} signs is wrong")
        if type(statement) is not str:
            raise WrongKeys(f"nothing hands over to key {number}")
        old_key, new_key = keys[number - 2], keys[number - 1]
        handovers.append(read_handover(city_id, number, old_key, new_key, size, statement))
        size_before = size
    return Chain(keys[0], tuple(handovers))


def read_key(text: object) -> bytes:
    if type(text) is not str or not KEY.fullmatch(text):
        raise WrongKeys("a key has 64 hexadecimal digits")
    return bytes.fromhex(text)
