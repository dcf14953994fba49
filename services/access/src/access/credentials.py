"""What is held to a reader: from the fields of a request to the credential that others know."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.problems import FieldError
from copass_tap.credentials import credential_hash, normalise_uid
from copass_tap.decision import CredentialType
from copass_tap.ntag424 import KeySet
from copass_tap.passes import PassCode, read_guest, read_pass

UID_FIELDS = ("type", "uid")
NTAG424_FIELDS = ("type", "picc_data", "mac")
CODE_FIELDS = ("type", "code")
KINDS = "uid, ntag424, pass or guest"
PICC_DATA = re.compile(r"[0-9A-Fa-f]{32}")
MAC = re.compile(r"[0-9A-Fa-f]{16}")


@dataclass(frozen=True, slots=True)
class Credential:
    """`hash`: the name of the credential outside the card. `counter`: of this message, if it
    has one. `code`: what a phone showed, which only its card's key can tell true from false."""

    type: CredentialType
    hash: str
    counter: int | None = None
    code: PassCode | None = None


class CredentialReader:
    """Holds the secrets that it takes: the pepper of the hashes, and the keys of the cards."""

    def __init__(self, pepper: bytes, keys: Sequence[KeySet] = ()) -> None:
        self._pepper = pepper
        self._keys = keys

    def read(self, fields: Any, where: str, errors: list[FieldError]) -> Credential | None:
        """The credential in parsed JSON, or None and the reasons in `errors`."""
        kind = fields.get("type", "uid") if isinstance(fields, dict) else "uid"
        if kind == "ntag424":
            return self._read_ntag424(fields, where, errors)
        if kind == "pass":
            return self._read_pass(fields, where, errors)
        if kind == "guest":
            return self._read_guest(fields, where, errors)
        if kind != "uid":
            errors.append(FieldError(f"{where}.type", f"must be {KINDS}"))
            return None
        if not has_exactly(fields, UID_FIELDS, where, errors):
            return None
        uid = normalise_uid(fields["uid"]) if isinstance(fields["uid"], str) else None
        if uid is None:
            message = "must be a card's own UID: 4, 7 or 10 bytes in hexadecimal"
            errors.append(FieldError(f"{where}.uid", message))
            return None
        return Credential("uid", credential_hash(self._pepper, "uid", uid))

    def _read_ntag424(
        self, fields: dict[str, Any], where: str, errors: list[FieldError]
    ) -> Credential | None:
        if not has_exactly(fields, NTAG424_FIELDS, where, errors):
            return None
        found = len(errors)
        for name, shape in (("picc_data", PICC_DATA), ("mac", MAC)):
            if not (isinstance(fields[name], str) and shape.fullmatch(fields[name])):
                digits = 32 if shape is PICC_DATA else 16
                errors.append(FieldError(f"{where}.{name}", f"must be {digits} hexadecimal digits"))
        if len(errors) > found:
            return None
        picc_data, mac = bytes.fromhex(fields["picc_data"]), bytes.fromhex(fields["mac"])
        for keys in self._keys:
            picc = keys.read(picc_data, mac)
            if picc is not None:
                uid = picc.uid.hex().upper()
                return Credential(
                    "ntag424", credential_hash(self._pepper, "ntag424", uid), picc.counter
                )
        # Well formed, and of no card of the network: a decision to be recorded, like any other
        # card that nobody knows. No card's UID is so long, so no card has this hash.
        return Credential("ntag424", credential_hash(self._pepper, "ntag424", picc_data.hex()))

    def _read_pass(
        self, fields: dict[str, Any], where: str, errors: list[FieldError]
    ) -> Credential | None:
        text = text_of(fields, where, errors)
        if text is None:
            return None
        code = read_pass(text)
        if code is None:
            message = "must be what a phone pass shows: CP1. and 135 digits of base32"
            errors.append(FieldError(f"{where}.code", message))
            return None
        named = credential_hash(self._pepper, "pass", code.card_id)
        return Credential("pass", named, code=code)

    def _read_guest(
        self, fields: dict[str, Any], where: str, errors: list[FieldError]
    ) -> Credential | None:
        text = text_of(fields, where, errors)
        if text is None:
            return None
        secret = read_guest(text)
        if secret is None:
            message = "must be what a guest pass shows: CG1. and 26 digits of base32"
            errors.append(FieldError(f"{where}.code", message))
            return None
        return Credential("guest", credential_hash(self._pepper, "guest", secret))


def text_of(fields: dict[str, Any], where: str, errors: list[FieldError]) -> str | None:
    """The code in the credential of a phone or a guest, or None and the reasons in `errors`."""
    if not has_exactly(fields, CODE_FIELDS, where, errors):
        return None
    if isinstance(fields["code"], str):
        return fields["code"]
    errors.append(FieldError(f"{where}.code", "must be a text"))
    return None


def has_exactly(value: Any, names: Sequence[str], where: str, errors: list[FieldError]) -> bool:
    """Whether `value` is an object with just these fields; if not, `errors` says why."""
    if not isinstance(value, dict):
        errors.append(FieldError(where, "must be an object"))
        return False
    if len(value) == len(names) and all(map(value.__contains__, names)):
        return True
    errors += [FieldError(f"{where}.{name}", "is missing") for name in names if name not in value]
    errors += [
        FieldError(f"{where}.{shown(name)}", "is not a field of a tap")
        for name in list(value)[:20]
        if name not in names
    ]
    return False


def shown(name: str) -> str:
    """A name from outside, short and printable."""
    return ascii(name[:40])[1:-1]
