"""Whether a phone made what it shows. Pure. The one module that needs `cryptography` (the extra
`passes`)."""

import base64
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from copass_tap.decision import Card, Tap
from copass_tap.passes import PassCode

# 65 bytes; the last digit has four bits of them and two zeros.
PUBLIC_KEY = re.compile(r"[A-Za-z0-9_-]{86}[AEIMQUYcgkosw048]")


def is_own(tap: Tap, card: Card) -> bool:
    """Whether a tap's credential is the card's: of a phone, whether it signed what it shows; any
    other credential was believed when it was read. Whose is not is nobody's card."""
    if tap.credential_type != "pass":
        return True
    code, key = tap.code, card.public_key
    return code is not None and key is not None and is_signed(code, key)


def is_signed(code: PassCode, public_key: str) -> bool:
    """Whether the phone of this key made the code. `public_key`: the uncompressed point of P-256
    in base64url; anything else is nobody's."""
    key = read_public_key(public_key)
    if key is None:
        return False
    r, s = (int.from_bytes(code.signature[at : at + 32]) for at in (0, 32))
    try:
        key.verify(encode_dss_signature(r, s), code.signed(), ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def read_public_key(text: str) -> EllipticCurvePublicKey | None:
    """A point of P-256, written as 65 bytes in base64url without padding; None for what is none."""
    if not PUBLIC_KEY.fullmatch(text):
        return None
    try:
        return EllipticCurvePublicKey.from_encoded_point(
            SECP256R1(), base64.urlsafe_b64decode(text + "=")
        )
    except ValueError:  # not on the curve, or not uncompressed
        return None
