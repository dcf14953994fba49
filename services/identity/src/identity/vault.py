"""What is derived from the two server secrets: card hashes, machine secrets, sealed keys."""

import base64
import hashlib
import hmac
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec

from common.sealing import Sealer, derive_key

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# More than the order has, so that the remainder is as good as uniform (FIPS 186-5, A.4.1).
PUSH_SEED_BYTES = 48
GUEST_BYTES = 16


def hash_credential(pepper: str, credential_type: str, credential: str) -> str:
    """The pseudonym of a card's credential, the same in identity and access.

    Lower-case hex HMAC-SHA256 of `"<type>:<credential>"`; for `uid` the normalised UID.
    """
    text = f"{credential_type}:{credential}"
    return hmac.new(pepper.encode(), text.encode(), hashlib.sha256).hexdigest()


def sha256_hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Vault:
    """Keys for separate purposes, each derived from the one `key_secret`."""

    def __init__(self, key_secret: str) -> None:
        self.signing_keys = Sealer(derive_key(key_secret, "identity signing keys at rest"))
        self._machines = derive_key(key_secret, "identity secrets of readers and clients")
        self._fingerprints = derive_key(key_secret, "identity fingerprints")
        self.password_salt = derive_key(key_secret, "identity salt of password fingerprints")[:16]
        # By which the push services know us. Browsers subscribe to this key, so it stays.
        self.push_key = derive_push_key(key_secret)

    def machine_secret(self, kind: str, id: UUID, generation: int) -> str:
        """The secret of a reader or client: 256 bits, base64url.

        Derived, not drawn, so that a command that is repeated gives the same answer although the
        secret is stored nowhere. A new generation is a new secret.
        """
        text = f"{kind}:{id}:{generation}".encode()
        return to_base64url(hmac.new(self._machines, text, hashlib.sha256).digest())

    def guest_secret(self, card_id: UUID) -> bytes:
        """The 16 bytes on a guest's paper, derived as machine_secret and for the same reason."""
        return hmac.digest(self._machines, f"guest:{card_id}".encode(), "sha256")[:GUEST_BYTES]

    def fingerprint(self, purpose: str, text: str) -> str:
        """Tells two secret inputs apart without keeping anything that could be searched for."""
        message = f"{purpose}:{text}".encode()
        return hmac.new(self._fingerprints, message, hashlib.sha256).hexdigest()


def derive_push_key(secret: str) -> ec.EllipticCurvePrivateKey:
    """A key of P-256."""
    seed = derive_key(secret, "identity web push", size=PUSH_SEED_BYTES)
    number = int.from_bytes(seed) % (P256_ORDER - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1())


def to_base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
