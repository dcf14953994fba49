"""Secure unique messages of NTAG 424 DNA cards (NXP AN12196), and keys diversified per card
(NXP AN10922). Pure: keys and messages are arguments.

At each tap the card writes a new message: PICCData, which is its UID and a counter under a key
that all cards of a network share, and a MAC under a key of its own. So a message shows that this
card made it; that it is new shows only the counter, which has to be above the last one seen.
"""

import hmac
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

BLOCK_BYTES = 16
UID_BYTES = 7
COUNTER_BYTES = 3
# UID mirrored, counter mirrored, and a UID of seven bytes: nothing else is a card of ours.
PICC_TAG = 0xC7
SESSION_MAC = bytes.fromhex("3CC300010080")
ZERO = bytes(BLOCK_BYTES)
# AN10922: what begins the input of an AES-128 key, and the length that the input is padded to.
DIVERSIFIES_AES128 = b"\x01"
DIVERSIFICATION_BYTES = 2 * BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class Picc:
    """What a message says that it is of: the card's UID and the number of this reading."""

    uid: bytes
    counter: int


def encrypt(key: bytes, plain: bytes) -> bytes:
    """AES-CBC from a zero vector, whole blocks."""
    encryptor = Cipher(algorithms.AES(key), modes.CBC(ZERO)).encryptor()
    return encryptor.update(plain) + encryptor.finalize()


def cmac(key: bytes, message: bytes) -> bytes:
    mac = CMAC(algorithms.AES(key))
    mac.update(message)
    return mac.finalize()


def open_picc(meta_key: bytes, encrypted: bytes) -> Picc | None:
    """Who the message is of; None when it is not under this key. Proves nothing yet."""
    if len(encrypted) != BLOCK_BYTES:
        return None
    decryptor = Cipher(algorithms.AES(meta_key), modes.CBC(ZERO)).decryptor()
    plain = decryptor.update(encrypted) + decryptor.finalize()
    if plain[0] != PICC_TAG:
        return None
    counter = plain[1 + UID_BYTES : 1 + UID_BYTES + COUNTER_BYTES]
    return Picc(plain[1 : 1 + UID_BYTES], int.from_bytes(counter, "little"))


def session_mac(file_key: bytes, picc: Picc, covered: bytes = b"") -> bytes:
    """The eight bytes that the card writes: the even-numbered ones, counted from one, of the CMAC
    over the `covered` characters of its message."""
    counter = picc.counter.to_bytes(COUNTER_BYTES, "little")
    vector = (SESSION_MAC + picc.uid + counter).ljust(BLOCK_BYTES, b"\0")
    return cmac(cmac(file_key, vector), covered)[1::2]


def is_genuine(file_key: bytes, picc: Picc, mac: bytes, covered: bytes = b"") -> bool:
    """Whether the card that has this key made the message. Takes as long either way."""
    return hmac.compare_digest(session_mac(file_key, picc, covered), mac)


def diversify(master_key: bytes, uid: bytes, application: bytes = b"") -> bytes:
    """The key of one card (AN10922, AES-128): `application` is what follows the UID in the input.

    Not the CMAC of RFC 4493: a short input is padded to two blocks as well. Raises ValueError when
    the input is longer than 31 bytes.
    """
    source = DIVERSIFIES_AES128 + uid + application
    if len(source) > DIVERSIFICATION_BYTES:
        raise ValueError("the input of a key has at most 31 bytes")
    doubled = double(encrypt(master_key, ZERO))
    if len(source) < DIVERSIFICATION_BYTES:
        doubled = double(doubled)
        source = (source + b"\x80").ljust(DIVERSIFICATION_BYTES, b"\0")
    first, last = source[:BLOCK_BYTES], source[BLOCK_BYTES:]
    masked = bytes(a ^ b for a, b in zip(last, doubled, strict=True))
    return encrypt(master_key, first + masked)[-BLOCK_BYTES:]


def double(block: bytes) -> bytes:
    """Times two in the field of AES-CMAC (RFC 4493, section 2.3)."""
    shifted = int.from_bytes(block, "big") << 1
    if shifted >> (8 * BLOCK_BYTES):
        shifted = (shifted & (1 << 8 * BLOCK_BYTES) - 1) ^ 0x87
    return shifted.to_bytes(BLOCK_BYTES, "big")


# ── The network's keys ──────────────────────────────────────────────────────────────────────────

KEY_CHANGE, KEY_FILE_READ, KEY_META_READ = 0, 1, 2


@dataclass(frozen=True, slots=True)
class KeySet:
    """The two secrets from which all keys of a network's cards follow; 16 bytes each.

    `meta` is on every card, and hides who taps from who listens. `master` is on none: each card
    has keys of its own that follow from it.
    """

    meta: bytes
    master: bytes

    def __repr__(self) -> str:
        return "KeySet(…)"  # whatever prints it, a log or a traceback

    def key_of(self, uid: bytes, number: int) -> bytes:
        """The key of a card in its slot `number`."""
        if number == KEY_META_READ:
            return self.meta
        return diversify(self.master, uid, b"copass" + bytes([number]))

    def read(self, encrypted: bytes, mac: bytes) -> Picc | None:
        """Who made a message, if a card of this network did; its counter is still to be checked."""
        picc = open_picc(self.meta, encrypted)
        if picc is None or not is_genuine(self.key_of(picc.uid, KEY_FILE_READ), picc, mac):
            return None
        return picc


def load_keys(reference: str) -> tuple[KeySet, ...]:
    """The key sets that a reference leads to, the one for new cards first; none when it is empty,
    or the list is.

    `file:<path>` or `env:<variable>`, of JSON: `[{"meta": hex, "master": hex}, …]`. The secrets
    stand where the reference says, never in a setting that could be printed. Raises ValueError,
    which never repeats what it read.
    """
    if not reference:
        return ()
    kind, _, name = reference.partition(":")
    try:
        if kind == "file":
            raw = Path(name).read_bytes()
        elif kind == "env":
            raw = os.environ[name].encode()
        else:
            raise ValueError("a reference to card keys begins with file: or env:")
    except (OSError, KeyError) as error:
        raise ValueError(f"there are no card keys at {reference}") from error
    try:
        found = tuple(
            KeySet(bytes.fromhex(item["meta"]), bytes.fromhex(item["master"]))
            for item in json.loads(raw)
        )
        if any(len(key) != BLOCK_BYTES for keys in found for key in (keys.meta, keys.master)):
            raise ValueError("a key of another length")
    except (ValueError, TypeError, KeyError):
        # Without its cause, which would repeat what was read.
        raise ValueError(f"{reference} has no card keys of the form that is asked for") from None
    return found
