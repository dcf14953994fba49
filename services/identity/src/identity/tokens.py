"""Access tokens (RFC 9068, Ed25519) as docs/contracts.md describes them, and refresh tokens."""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import httpx
import jwt
import orjson

from identity.keys import ACCESS_TOKEN_LIFETIME, KeyRing

REFRESH_TOKEN_BYTES = 32


async def mint(
    ring: KeyRing,
    *,
    issuer: str,
    sub: UUID,
    kind: str,
    city_id: str | None,
    roles: frozenset[str],
    audiences: Sequence[str],
    jti: UUID,
    now: datetime,
) -> str:
    """A signed access token, good for ten minutes. Raises keys.NoSigningKey and WrongSecret."""
    kid, private_key = await ring.signer()
    issued_at = int(now.timestamp())
    claims = {
        "iss": issuer,
        "sub": str(sub),
        "aud": list(audiences),
        "iat": issued_at,
        "exp": issued_at + int(ACCESS_TOKEN_LIFETIME.total_seconds()),
        "jti": str(jti),
        "kind": kind,
        "city": city_id,
        "roles": sorted(roles),
    }
    return jwt.encode(claims, private_key, algorithm="EdDSA", headers={"kid": kid, "typ": "at+jwt"})


def make_refresh_token() -> str:
    """256 random bits, base64url."""
    return secrets.token_urlsafe(REFRESH_TOKEN_BYTES)


def hash_refresh_token(token: str) -> bytes:
    """What is stored of it. Unsalted is enough: 256 random bits cannot be guessed."""
    return hashlib.sha256(token.encode()).digest()


class OwnKeySet(httpx.AsyncBaseTransport):
    """Gives identity's own verifier the key set without a request to itself over the network."""

    def __init__(self, ring: KeyRing) -> None:
        self.ring = ring

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = orjson.dumps(await self.ring.key_set())
        return httpx.Response(200, content=content, request=request)
