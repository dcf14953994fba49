"""What an input read → the credential that the service takes, and its name in the snapshot.

An input gives one line of text for each thing held to it: a card's UID in hexadecimal, the address
that a cryptographic card writes (`…?e=…&c=…`), or what a phone or a guest's paper shows. Whatever
else comes is no credential, and nobody is let in by it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from copass_tap import ntag424
from copass_tap.credentials import credential_hash, normalise_uid
from copass_tap.decision import CredentialType
from copass_tap.passes import PassCode, read_guest, read_pass

TEXT_MAX = 512
E_PARAMETER = re.compile(r"[?&]e=([0-9A-Fa-f]{32})(?:&|$)")
C_PARAMETER = re.compile(r"[?&]c=([0-9A-Fa-f]{16})(?:&|$)")


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the service gave this reader to tell one card from another (signing.offline_secrets)."""

    pepper: bytes
    meta: tuple[bytes, ...]

    def __repr__(self) -> str:
        return "Secrets(…)"


@dataclass(frozen=True, slots=True)
class Reading:
    """`wire`: the credential as the service takes it. `code`: of a phone. `message`: of a
    cryptographic card, to be checked with a key of its own."""

    type: CredentialType
    wire: dict[str, str]
    code: PassCode | None = None
    message: tuple[bytes, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """A reading that this board knows the name of. `counter`: of a card's message, or the window
    of a phone's code. `is_believed`: that it is what it says was
    checked here, or needs no check."""

    hash: str
    counter: int | None = None
    is_believed: bool = True


def read_text(text: str) -> Reading | None:
    """The credential in what an input read; None for what is none."""
    text = text.strip()
    if not text or len(text) > TEXT_MAX or not text.isascii():
        return None
    uid = normalise_uid(text)
    if uid is not None:
        return Reading("uid", {"type": "uid", "uid": uid})
    code = read_pass(text)
    if code is not None:
        return Reading("pass", {"type": "pass", "code": text}, code=code)
    if read_guest(text) is not None:
        return Reading("guest", {"type": "guest", "code": text})
    picc_data, mac = E_PARAMETER.search(text), C_PARAMETER.search(text)
    if picc_data is None or mac is None:
        return None
    wire = {"type": "ntag424", "picc_data": picc_data[1], "mac": mac[1]}
    message = bytes.fromhex(picc_data[1]), bytes.fromhex(mac[1])
    return Reading("ntag424", wire, message=message)


def name_of(
    reading: Reading, secrets: Secrets, card_keys: Callable[[str], bytes | None]
) -> Named | None:
    """Whose reading it is, as far as this board can tell. `card_keys(hash)`: the card's own key,
    if the service gave it. None: it cannot tell."""
    if reading.type == "uid":
        return Named(credential_hash(secrets.pepper, "uid", reading.wire["uid"]))
    if reading.code is not None:  # believed when its card's public key says so
        named = credential_hash(secrets.pepper, "pass", reading.code.card_id)
        return Named(named, reading.code.window)
    if reading.type == "guest":
        guest = read_guest(reading.wire["code"])
        return Named(credential_hash(secrets.pepper, "guest", guest)) if guest else None
    if reading.message is None:
        return None
    picc_data, mac = reading.message
    for meta in secrets.meta:
        picc = ntag424.open_picc(meta, picc_data)
        if picc is None:
            continue
        named = credential_hash(secrets.pepper, "ntag424", picc.uid.hex().upper())
        key = card_keys(named)
        believed = key is not None and ntag424.is_genuine(key, picc, mac)
        return Named(named, picc.counter, believed)
    return None
