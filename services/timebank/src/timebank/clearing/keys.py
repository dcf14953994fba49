"""The keys with which cities sign: made once, sealed at rest, opened when something is signed."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.sealing import Sealer, derive_key


class Vault:
    """Opens the keys of our cities. Raises common.sealing.WrongSecret when they are not ours."""

    def __init__(self, key_secret: str) -> None:
        self._sealer = Sealer(derive_key(key_secret, "timebank city keys"))

    def make(self, city_id: str) -> tuple[bytes, bytes]:
        """A new key: the public half, and the private one as it is kept."""
        key = Ed25519PrivateKey.generate()
        return key.public_key().public_bytes_raw(), self.seal(key, city_id)

    def seal(self, key: Ed25519PrivateKey, city_id: str) -> bytes:
        """A private key as it is kept here."""
        return self._sealer.seal(key.private_bytes_raw(), name=city_id)

    def open(self, sealed: bytes, city_id: str) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self._sealer.unseal(sealed, name=city_id))


def is_signed_by(public_key: bytes, signature: bytes, content: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True
