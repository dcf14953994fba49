"""The key that readers trust, and what only one reader can open."""

import base64
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.problems import Problem
from common.sealing import Sealer, derive_key
from copass_tap.ntag424 import KEY_FILE_READ, KeySet

OFFLINE_SECRETS = "copass reader offline secrets v1"
CARD_KEY = "copass reader card key v1"


class Signer:
    """Signs with a key that follows from the service's secret, so that it is kept nowhere."""

    def __init__(self, secret: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(
            derive_key(secret, "access signature of snapshots")
        )

    def sign(self, content: bytes) -> bytes:
        return self._key.sign(content)

    @property
    def public_key(self) -> str:
        """64 hexadecimal digits."""
        return self._key.public_key().public_bytes_raw().hex()


def make_signer(secret: str) -> Signer | None:
    return Signer(secret) if secret else None


def need_signer(signer: Signer | None) -> Signer:
    """Raises Problem 503 where no secret is set: then no reader may decide alone."""
    if signer is None:
        raise Problem(
            503, "snapshots_off", "This service signs no snapshots: ACCESS_KEY_SECRET is not set."
        )
    return signer


def seal_for_reader(reader_secret: str, content: bytes, purpose: str) -> str:
    """Base64 of what only who has the reader's secret can open."""
    sealer = Sealer(derive_key(reader_secret, purpose))
    return base64.b64encode(sealer.seal(content, name=purpose)).decode()


def offline_secrets(pepper: str, keys: tuple[KeySet, ...]) -> bytes:
    """What a reader needs to tell one card from another without asking: the pepper, and the keys
    that hide who taps. Never those from which the keys of cards follow."""
    return json.dumps({"pepper": pepper, "meta": [one.meta.hex() for one in keys]}).encode()


def file_key(keys: tuple[KeySet, ...], picc_data: str, mac: str) -> bytes | None:
    """The key that a card's messages are checked with; None for a message of no card of ours."""
    for one in keys:
        picc = one.read(bytes.fromhex(picc_data), bytes.fromhex(mac))
        if picc is not None:
            return one.key_of(picc.uid, KEY_FILE_READ)
    return None
