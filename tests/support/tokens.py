"""Access tokens as identity makes them, for a service that is tested without it."""

import base64
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.clock import utc_now
from common.ids import new_id

ISSUER = "https://identity.test"
KEY = Ed25519PrivateKey.from_private_bytes(b"t" * 32)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def key_set() -> dict[str, Any]:
    raw = KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "kid": "k", "alg": "EdDSA"}]}


def token(sub: str, *, city: str | None, roles: tuple[str, ...]) -> str:
    now = int(utc_now().timestamp())
    claims = {
        "iss": ISSUER,
        "sub": sub,
        "aud": ["timebank"],
        "iat": now,
        "exp": now + 600,
        "jti": str(new_id()),
        "kind": "member",
        "city": city,
        "roles": list(roles),
    }
    return jwt.encode(claims, KEY, algorithm="EdDSA", headers={"kid": "k", "typ": "at+jwt"})
