"""What a member's phone shows, and what a guest's paper shows. Pure.

A phone pass is `CP1.` and the base32 of: the card's id (16 bytes), the number of the window of 30
seconds in which it was made (4 bytes, the highest first), and the phone's ECDSA P-256 signature
of both (r and s, 64 bytes). A guest pass is `CG1.` and the base32 of a secret of 16 bytes.
Base32 without padding, because a QR of digits and capitals is a fifth smaller, and because a
scanner that types like a keyboard gets capitals and digits right whatever its layout.

Who is to believe a phone pass needs the public key of the card and nothing else (signatures.py),
so that a reader without a network can, too.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from uuid import UUID

PASS_PREFIX = "CP1."  # noqa: S105 - how a text begins, no secret
GUEST_PREFIX = "CG1."
WINDOW_SECONDS = 30
# A phone's clock may be so many windows off.
WINDOWS_OFF_MAX = 1

CARD_ID_BYTES = 16
WINDOW_BYTES = 4
SIGNATURE_BYTES = 64
SIGNED_BYTES = CARD_ID_BYTES + WINDOW_BYTES
PASS_BYTES = SIGNED_BYTES + SIGNATURE_BYTES
GUEST_BYTES = 16

# Before what is signed, so that a signature made for a door means nothing anywhere else.
CONTEXT = b"copass phone pass v1\n"

BASE32 = re.compile(r"[A-Z2-7]+")


@dataclass(frozen=True, slots=True)
class PassCode:
    """What a phone shows, not yet believed. `signature`: r and s, 32 bytes each."""

    card_id: str
    window: int
    signature: bytes

    def signed(self) -> bytes:
        """The bytes that the phone signed."""
        return CONTEXT + UUID(self.card_id).bytes + self.window.to_bytes(WINDOW_BYTES)

    def is_current(self, at: int) -> bool:
        """Whether it may be shown at `at` (epoch seconds), give or take a clock."""
        return abs(self.window - window_at(at)) <= WINDOWS_OFF_MAX


def read_pass(text: str) -> PassCode | None:
    """What is in the text of a phone pass; None for what is none."""
    raw = read_text(text, PASS_PREFIX, PASS_BYTES)
    if raw is None:
        return None
    return PassCode(
        card_id=str(UUID(bytes=raw[:CARD_ID_BYTES])),
        window=int.from_bytes(raw[CARD_ID_BYTES:SIGNED_BYTES]),
        signature=raw[SIGNED_BYTES:],
    )


def read_guest(text: str) -> str | None:
    """The secret of a guest pass as its credential is written; None for what is none."""
    raw = read_text(text, GUEST_PREFIX, GUEST_BYTES)
    return None if raw is None else to_base32(raw)


def write_pass(code: PassCode) -> str:
    return PASS_PREFIX + to_base32(code.signed().removeprefix(CONTEXT) + code.signature)


def write_guest(secret: bytes) -> str:
    return GUEST_PREFIX + to_base32(secret)


def to_base32(raw: bytes) -> str:
    return base64.b32encode(raw).rstrip(b"=").decode()


def read_text(text: str, prefix: str, size: int) -> bytes | None:
    """The bytes behind a prefix; None unless there are `size` of them, written in the one way."""
    if len(text) != len(prefix) + (size * 8 + 4) // 5 or not text.isascii():
        return None
    upper = text.upper()  # a scanner that types may have the shift key wrong
    coded = upper[len(prefix) :]
    if not upper.startswith(prefix) or not BASE32.fullmatch(coded):
        return None
    try:
        raw = base64.b32decode(coded + "=" * (-len(coded) % 8))
    except binascii.Error:
        return None
    # The last digit has bits to spare, which are zeros in the one way that counts.
    return raw if to_base32(raw) == coded else None


def window_at(at: int) -> int:
    """The window that an instant lies in (epoch seconds)."""
    return at // WINDOW_SECONDS
