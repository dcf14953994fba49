"""Secrets at rest in a database: sealed with a key that is not in it."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12
KEY_BYTES = 32


class WrongSecret(Exception):
    """A sealed value was not sealed with this secret, or was changed."""


def derive_key(secret: str, purpose: str, size: int = KEY_BYTES) -> bytes:
    """`size` bytes for one purpose out of a server's secret: HKDF with SHA-256 (RFC 5869)."""
    hkdf = HKDF(algorithm=SHA256(), length=size, salt=None, info=purpose.encode())
    return hkdf.derive(secret.encode())


class Sealer:
    """AES-256-GCM, a random nonce before the ciphertext."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, secret: bytes, *, name: str) -> bytes:
        """`name` binds the sealed value to its row."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, secret, name.encode())

    def unseal(self, sealed: bytes, *, name: str) -> bytes:
        """Raises WrongSecret when it was sealed with another secret, or for another name."""
        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode())
        except InvalidTag as error:
            raise WrongSecret(f"{name} cannot be opened with this secret") from error
