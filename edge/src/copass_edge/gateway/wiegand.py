"""Card numbers of Wiegand readers, and which UID they stand for. Pure.

A Wiegand reader sends a part of the card's UID as a number: 26 bits hold three of its bytes, 34
bits four. So a number names a UID exactly only where all cards have 4 bytes and the reader sends
34 bits; for every other card the numbers must be worked out from a list, the other way round.
UHPPOTE controllers show 26 bits as the facility (one byte) × 100,000 + the card (two bytes), and
34 bits as one number.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from copass_tap.credentials import normalise_uid

FACILITY = 100_000


@dataclass(frozen=True, slots=True)
class CardFormat:
    """How a reader makes a number of a UID: which of its bytes it keeps, and in which order."""

    bits: Literal[26, 34]
    byte_order: Literal["as_read", "reversed"]
    keep: Literal["first", "last"]


def card_number(uid: str, form: CardFormat) -> int:
    """The number that a controller shows for a UID of hexadecimal digits."""
    raw = bytes.fromhex(uid)
    size = 3 if form.bits == 26 else 4
    kept = raw[:size] if form.keep == "first" else raw[-size:]
    number = int.from_bytes(kept if form.byte_order == "as_read" else kept[::-1], "big")
    if form.bits == 26:
        return (number >> 16) * FACILITY + (number & 0xFFFF)
    return number


def uid_of_number(number: int, form: CardFormat) -> str | None:
    """The 4-byte UID that 34 bits hold whole; None for what is no card's own UID."""
    if form.bits != 34 or not 0 < number < 2**32:
        return None
    raw = number.to_bytes(4, "big")
    return normalise_uid((raw if form.byte_order == "as_read" else raw[::-1]).hex())


def numbers_of(uids: Iterable[str], form: CardFormat) -> Mapping[int, str]:
    """Number → UID of listed cards. Numbers that two cards share name neither."""
    found: dict[int, str] = {}
    shared: set[int] = set()
    for uid in uids:
        number = card_number(uid, form)
        if number in found and found[number] != uid:
            shared.add(number)
        found[number] = uid
    return {number: uid for number, uid in found.items() if number not in shared}
