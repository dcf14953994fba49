"""The signed messages of clearing, as evidence of what the other city said."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from copass_verify.entries import WrongEntry, read_object, read_time
from copass_verify.keys import Chain

PREFIX = b"copass clearing v1\n"


def signed_bytes(message: Mapping[str, Any]) -> bytes:
    """RFC 8785 of the message without its signature; names are ASCII and numbers integers."""
    rest = {name: value for name, value in message.items() if name != "signature"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return PREFIX + text.encode()


def read_message(raw: bytes, keys: Mapping[str, Chain]) -> dict[str, Any] | None:
    """A message that the city it comes from signed, with a key that it had then; None when none of
    its keys is known. Raises WrongEntry."""
    message = read_object(raw)
    sender = message.get("from_city")
    body = message.get("body")
    if type(sender) is not str or type(body) is not dict:
        raise WrongEntry("a message comes from nobody")
    if sender not in keys or not keys[sender].keys:
        return None
    try:
        signature = base64.b64decode(message["signature"], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise WrongEntry("a message has no signature") from error
    content = signed_bytes(message)
    # The newest first: most are under it.
    for number, key in reversed(list(enumerate(keys[sender].keys, start=1))):
        try:
            Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, content)
        except (InvalidSignature, ValueError):
            continue
        if key.until is not None and read_time(message.get("sent_at")) > key.until:
            raise WrongEntry(f"a message of {sender} is under key {number}, after its hand-over")
        return message
    raise WrongEntry(f"a message of {sender} has a wrong signature")
