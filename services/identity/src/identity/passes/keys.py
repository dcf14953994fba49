"""The public key of a phone, as a browser exports it."""

import base64
import re

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

from identity.domain import Malformed

# 65 bytes in base64url: the last digit has four bits of them and two zeros.
PUBLIC_KEY = re.compile(r"[A-Za-z0-9_-]{86}[AEIMQUYcgkosw048]")


def check_public_key(text: str) -> str:
    """A point of P-256, uncompressed, in base64url without padding: the one way of writing it.

    Raises Malformed for anything else, also for a point that is not on the curve.
    """
    if not PUBLIC_KEY.fullmatch(text):
        raise Malformed("the key is not 65 bytes in base64url")
    try:
        EllipticCurvePublicKey.from_encoded_point(SECP256R1(), base64.urlsafe_b64decode(text + "="))
    except ValueError as error:
        raise Malformed("the key is not an uncompressed point of P-256") from error
    return text
