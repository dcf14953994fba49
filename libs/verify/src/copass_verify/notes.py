"""Signed notes: text with Ed25519 signatures (C2SP signed-note, tlog-cosignature).

    text, each line ended
    (blank line)
    — name base64(key id ‖ signature)

A signature line begins with U+2014 and a space. A key id is the first four bytes of
SHA-256(name ‖ 0x0A ‖ type ‖ public key). Types: 1 signs the text itself; 4 is a cosignature, which
signs the text together with the time when the cosigner saw it.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

NOTE_BYTES_MAX = 1_000_000
SIGNATURES_MAX = 100
KEY_ID_BYTES = 4
KEY_BYTES = 32
SIGNATURE_BYTES = 64
TIME_BYTES = 8
SIGNS, COSIGNS = 1, 4
DASH = "\u2014 "
# Unicode's category Cc, but for the line feed.
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")

Fault = Literal["malformed", "unverified", "bad_signature", "ambiguous_key"]


class WrongNote(ValueError):
    """A note that cannot be believed; `fault` says in which way."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


class WrongKey(ValueError):
    """What was given is no key of the expected form."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key that somebody is known by."""

    name: str
    key_id: bytes
    kind: int
    public_key: bytes

    def __str__(self) -> str:
        """The form `name+key id+base64(type ‖ key)` in which keys are published."""
        key = base64.b64encode(bytes([self.kind]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that was verified; `signed_at`: epoch seconds, of a cosignature."""

    verifier: Verifier
    signed_at: int | None = None


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """A signature as it stands in a note."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A note's text with the signatures that were verified, and how many others it has."""

    text: str
    signatures: tuple[Signature, ...]
    unknown: int


# ── Keys ────────────────────────────────────────────────────────────────────────────────────────


def key_id_of(name: str, kind: int, public_key: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:KEY_ID_BYTES]


def is_name(name: str) -> bool:
    """A name shows itself: not empty, without spaces and without a plus."""
    return bool(name) and "+" not in name and not any(character.isspace() for character in name)


def to_verifier(name: str, public_key: bytes, *, cosigns: bool = False) -> Verifier:
    """The verifier of a raw public key of 32 bytes. Raises WrongKey."""
    kind = COSIGNS if cosigns else SIGNS
    if not is_name(name) or len(public_key) != KEY_BYTES:
        raise WrongKey("a key has a name without spaces or plus, and 32 bytes")
    return Verifier(name, key_id_of(name, kind, public_key), kind, public_key)


def decode_base64(text: str) -> bytes:
    """Strict standard base64: one text for one value. Raises ValueError."""
    value = base64.b64decode(text, validate=True)
    if base64.b64encode(value).decode() != text:
        raise ValueError("not canonical base64")
    return value


def split_key(text: str, kinds: Sequence[int]) -> tuple[str, bytes, int, bytes]:
    """`name+key id+base64(type ‖ key)` in its parts. Raises WrongKey."""
    parts = text.split("+", 2)
    if len(parts) != 3 or not is_name(parts[0]):
        raise WrongKey("a key is name+key id+key")
    name, key_id, encoded = parts
    if len(key_id) != 2 * KEY_ID_BYTES or key_id.lower() != key_id:
        raise WrongKey("a key id has eight lower-case hexadecimal digits")
    try:
        identity, key = bytes.fromhex(key_id), decode_base64(encoded)
    except (ValueError, binascii.Error) as error:
        raise WrongKey("a key id is hexadecimal, a key base64") from error
    if len(key) != 1 + KEY_BYTES or key[0] not in kinds:
        raise WrongKey("not an Ed25519 key")
    return name, identity, key[0], key[1:]


def parse_verifier(text: str) -> Verifier:
    """Raises WrongKey, also when the key id is not the one of the key."""
    name, key_id, kind, public_key = split_key(text, (SIGNS, COSIGNS))
    if key_id_of(name, kind, public_key) != key_id:
        raise WrongKey("the key id belongs to another key")
    return Verifier(name, key_id, kind, public_key)


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, with the verifier that others know."""

    verifier: Verifier
    private_key: Ed25519PrivateKey

    def sign(self, text: str) -> SignatureLine:
        """Sign a text as a whole (type 1)."""
        signature = self.private_key.sign(text.encode())
        return SignatureLine(self.verifier.name, self.verifier.key_id, signature)

    def cosign(self, text: str, at: int) -> SignatureLine:
        """Say that the text was seen at `at` (epoch seconds), and consistent with what was before.

        Format: C2SP tlog-cosignature, `cosignature/v1`.
        """
        signature = self.private_key.sign(cosigned(text, at))
        stamped = at.to_bytes(TIME_BYTES, "big") + signature
        return SignatureLine(self.verifier.name, self.verifier.key_id, stamped)


def to_signer(name: str, seed: bytes, *, cosigns: bool = False) -> Signer:
    """The signer of a private key's 32 bytes. Raises WrongKey."""
    if len(seed) != KEY_BYTES:
        raise WrongKey("a private key has 32 bytes")
    private_key = Ed25519PrivateKey.from_private_bytes(seed)
    public_key = private_key.public_key().public_bytes_raw()
    return Signer(to_verifier(name, public_key, cosigns=cosigns), private_key)


def parse_signer(text: str) -> Signer:
    """`PRIVATE+KEY+name+key id+base64(type ‖ seed)`. Raises WrongKey."""
    prefix = "PRIVATE+KEY+"
    if not text.startswith(prefix):
        raise WrongKey("a private key begins with PRIVATE+KEY+")
    name, key_id, kind, seed = split_key(text[len(prefix) :], (SIGNS, COSIGNS))
    signer = to_signer(name, seed, cosigns=kind == COSIGNS)
    if signer.verifier.key_id != key_id:
        raise WrongKey("the key id belongs to another key")
    return signer


# ── Notes ───────────────────────────────────────────────────────────────────────────────────────


def cosigned(text: str, at: int) -> bytes:
    """The bytes that a cosignature signs."""
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def format_note(text: str, signatures: Sequence[SignatureLine]) -> str:
    """Put text and signatures together. Raises WrongNote when nobody could read it back."""
    if not signatures or len(signatures) > SIGNATURES_MAX:
        raise WrongNote("malformed", f"a note has 1 to {SIGNATURES_MAX} signatures")
    lines = [
        f"{DASH}{line.name} {base64.b64encode(line.key_id + line.signature).decode()}\n"
        for line in signatures
    ]
    note = f"{text}\n{''.join(lines)}"
    if split_note(note.encode()) != (text, list(signatures)):
        raise WrongNote("malformed", "the text would not be read back as it is")
    return note


def split_note(raw: bytes) -> tuple[str, list[SignatureLine]]:
    """A note's text and its signature lines, none of them verified. Raises WrongNote."""
    if len(raw) > NOTE_BYTES_MAX:
        raise WrongNote("malformed", "the note is too long")
    try:
        note = raw.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise WrongNote("malformed", "the note is not UTF-8") from error
    if CONTROL.search(note):
        raise WrongNote("malformed", "the note has control characters")
    cut = note.rfind("\n\n")
    if cut < 0 or not note.endswith("\n"):
        raise WrongNote("malformed", "a note is a text, a blank line, and signatures")
    text, below = note[: cut + 1], note[cut + 2 :]
    lines = below.split("\n")[:-1]
    if not 1 <= len(lines) <= SIGNATURES_MAX:
        raise WrongNote("malformed", f"a note has 1 to {SIGNATURES_MAX} signatures")
    return text, [split_line(line) for line in lines]


def split_line(line: str) -> SignatureLine:
    name, _, encoded = line.removeprefix(DASH).partition(" ")
    if not line.startswith(DASH) or not is_name(name):
        raise WrongNote("malformed", "a signature line is — name signature")
    try:
        value = decode_base64(encoded)
    except (ValueError, binascii.Error) as error:
        raise WrongNote("malformed", "a signature is base64") from error
    if len(value) <= KEY_ID_BYTES:
        raise WrongNote("malformed", "a signature follows its key id")
    return SignatureLine(name, value[:KEY_ID_BYTES], value[KEY_ID_BYTES:])


def open_note(raw: bytes, verifiers: Sequence[Verifier]) -> Note:
    """A note that at least one of these keys signed.

    A signature of an unknown key is counted and not believed; a wrong one of a known key spoils
    the whole note. Raises WrongNote.
    """
    text, lines = split_note(raw)
    verified: dict[Verifier, Signature] = {}
    unknown: set[SignatureLine] = set()
    for line in lines:
        known = [item for item in verifiers if (item.name, item.key_id) == (line.name, line.key_id)]
        if len(known) > 1:
            raise WrongNote("ambiguous_key", f"{line.name} has two keys of one id")
        if not known:
            unknown.add(line)
        elif known[0] not in verified:
            verified[known[0]] = check_line(text, line, known[0])
    if not verified:
        raise WrongNote("unverified", "no known key signed this")
    return Note(text, tuple(verified.values()), len(unknown))


def check_line(text: str, line: SignatureLine, verifier: Verifier) -> Signature:
    """Raises WrongNote unless the verifier's key made this signature of the text."""
    signature, signed, at = line.signature, text.encode(), None
    if verifier.kind == COSIGNS:
        at = int.from_bytes(signature[:TIME_BYTES], "big")
        signature, signed = signature[TIME_BYTES:], cosigned(text, at)
    try:
        Ed25519PublicKey.from_public_bytes(verifier.public_key).verify(signature, signed)
    except (InvalidSignature, ValueError) as error:
        raise WrongNote("bad_signature", f"the signature of {line.name} is wrong") from error
    return Signature(verifier, at)
