"""Access tokens: JWTs (RFC 9068) signed with Ed25519, checked against the issuer's published keys.

Stricter than the library on purpose: one algorithm, one key type, unique key ids, no header that
could name another key, a bounded size, every claim required and of the right type.
"""

import asyncio
import base64
import binascii
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import httpx
import jwt
import orjson
from fastapi import Depends, Request
from jwt.algorithms import OKPAlgorithm

from common.clock import Clock, utc_now
from common.logging import get_logger
from common.problems import unauthenticated, unavailable

ALGORITHM = "EdDSA"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - the media type of RFC 9068, no secret
TOKEN_BYTES_MAX = 8192
LEEWAY_S = 30
KEYS_FRESH_FOR = timedelta(minutes=5)
# An unknown key id makes us ask the issuer again, but not as often as somebody sends nonsense.
KEYS_REFETCH_AFTER = timedelta(seconds=2)
VERIFIED_MAX = 2_000
SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
REQUIRED_CLAIMS = ["iss", "sub", "aud", "iat", "exp", "jti"]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling. `city` is None for those of the federation."""

    sub: str
    kind: str
    city: str | None
    roles: frozenset[str]

    def has(self, *roles: str) -> bool:
        """Whether the caller has any of these roles, in whatever city."""
        return not self.roles.isdisjoint(roles)

    def in_city(self, city: str | None, *roles: str) -> bool:
        """Whether the caller has any of these roles in this city."""
        return city is not None and self.city == city and self.has(*roles)


class InvalidToken(Exception):
    """Why a token was refused. Logged; the caller learns only that it was."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that was good, until `expires_at` (seconds of the epoch, leeway included)."""

    principal: Principal
    key_id: str
    key: Any
    expires_at: float


class TokenVerifier:
    """Verifies tokens for one audience with the keys at `jwks_url`, fetched when needed and kept.

    While the issuer is away the known keys go on working. What was verified is remembered until it
    expires or its key changes: people and programs send one token with many requests.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        jwks_url: str,
        http: httpx.AsyncClient,
        clock: Clock = utc_now,
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        self.jwks_url = jwks_url
        self.http = http
        self.clock = clock
        self._keys: dict[str, Any] = {}
        self._fetched_at: datetime | None = None
        self._fetching = asyncio.Lock()
        self._verified: OrderedDict[str, Verified] = OrderedDict()

    async def verify(self, token: str) -> Principal:
        """The caller. Raises Problem 401 for a token that is not good, 503 without any keys."""
        known = self._verified.get(token)
        try:
            key_id = known.key_id if known else read_key_id(token)
            key = await self._key(key_id)
            now = self.clock()
            if known is None or known.key is not key or known.expires_at <= now.timestamp():
                claims = read_claims(
                    token, key, issuer=self.issuer, audience=self.audience, now=now
                )
                known = Verified(to_principal(claims), key_id, key, claims["exp"] + LEEWAY_S)
                self._remember(token, known)
            return known.principal
        except (InvalidToken, jwt.InvalidTokenError) as error:
            log.info("token_refused", reason=str(error))
            raise unauthenticated("The access token is not valid.") from error

    def _remember(self, token: str, verified: "Verified") -> None:
        self._verified[token] = verified
        if len(self._verified) > VERIFIED_MAX:
            self._verified.popitem(last=False)

    async def _key(self, key_id: str) -> Any:
        now = self.clock()
        age = now - self._fetched_at if self._fetched_at else None
        if (
            age is None
            or age > KEYS_FRESH_FOR
            or (key_id not in self._keys and age > KEYS_REFETCH_AFTER)
        ):
            await self._fetch(now)
        if key_id not in self._keys:
            if not self._keys:
                raise unavailable("The signing keys cannot be read now. Try again.")
            raise InvalidToken("unknown key id")
        return self._keys[key_id]

    async def _fetch(self, now: datetime) -> None:
        async with self._fetching:
            if self._fetched_at is not None and self._fetched_at >= now:
                return
            try:
                answer = await self.http.get(self.jwks_url, timeout=3)
                answer.raise_for_status()
                self._keys = read_key_set(answer.content)
            except (httpx.HTTPError, ValueError) as error:
                log.warning("keys_not_fetched", error=type(error).__name__)
            self._fetched_at = now


def read_key_set(content: bytes) -> dict[str, Any]:
    """The Ed25519 public keys of a JWK set (RFC 7517, RFC 8037), by key id.

    Raises ValueError for a set with anything else in it: mixed or repeated keys are refused whole.
    """
    document = orjson.loads(content)
    keys: dict[str, Any] = {}
    for jwk in document["keys"]:
        if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519" or "d" in jwk:
            raise ValueError("only public Ed25519 keys are accepted")
        if jwk.get("use", "sig") != "sig" or jwk.get("alg", ALGORITHM) != ALGORITHM:
            raise ValueError("only signing keys are accepted")
        if not isinstance(jwk.get("kid"), str) or jwk["kid"] in keys:
            raise ValueError("key ids must be there and unique")
        keys[jwk["kid"]] = OKPAlgorithm.from_jwk(jwk)
    return keys


def read_key_id(token: str) -> str:
    """The key id in a token's header. Raises InvalidToken for a shape that is not ours."""
    if len(token) > TOKEN_BYTES_MAX:
        raise InvalidToken("too long")
    parts = token.split(".")
    if len(parts) != 3 or not all(SEGMENT.fullmatch(part) for part in parts):
        raise InvalidToken("not three base64url parts")
    for part in parts:
        decoded = decode_segment(part)
        if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != part:
            raise InvalidToken("not canonical base64url")
    try:
        header = orjson.loads(decode_segment(parts[0]))
    except ValueError as error:
        raise InvalidToken("the header is not JSON") from error
    if not isinstance(header, dict) or set(header) != {"alg", "kid", "typ"}:
        raise InvalidToken("the header must have alg, kid and typ only")
    if header["alg"] != ALGORITHM or header["typ"] != TOKEN_TYPE:
        raise InvalidToken("wrong algorithm or type")
    if not isinstance(header["kid"], str) or not 0 < len(header["kid"]) <= 100:
        raise InvalidToken("no key id")
    return header["kid"]


def decode_segment(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError) as error:
        raise InvalidToken("not base64url") from error


def read_claims(
    token: str, key: Any, *, issuer: str, audience: str, now: datetime
) -> dict[str, Any]:
    """The claims, once the signature and every one of them is found good.

    Raises InvalidToken or jwt.InvalidTokenError.
    """
    # The times are checked below, against the clock that was passed in.
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=[ALGORITHM],
        audience=audience,
        issuer=issuer,
        options={
            "require": REQUIRED_CLAIMS,
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
        },
    )
    if not isinstance(claims["iss"], str) or claims["iss"] != issuer:
        raise InvalidToken("wrong issuer")
    for name in ("iat", "exp", *(["nbf"] if "nbf" in claims else [])):
        if isinstance(claims[name], bool) or not isinstance(claims[name], int):
            raise InvalidToken(f"{name} is not an integer")
    at = now.timestamp()
    if claims["exp"] <= at - LEEWAY_S:
        raise InvalidToken("expired")
    if claims["iat"] > at + LEEWAY_S or claims.get("nbf", 0) > at + LEEWAY_S:
        raise InvalidToken("not valid yet")
    city = claims.get("city")
    roles = claims.get("roles", [])
    if not isinstance(claims["sub"], str) or claims.get("kind") not in {"member", "service"}:
        raise InvalidToken("no subject or kind")
    if not (city is None or isinstance(city, str)) or not is_list_of_text(roles):
        raise InvalidToken("malformed city or roles")
    return claims


def to_principal(claims: dict[str, Any]) -> Principal:
    return Principal(
        claims["sub"], claims["kind"], claims.get("city"), frozenset(claims.get("roles", []))
    )


def is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def bearer_token(request: Request) -> str | None:
    """The token of the Authorization header, None without one. Raises Problem 401 for two."""
    values: Sequence[str] = request.headers.getlist("authorization")
    if not values:
        return None
    scheme, _, token = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise unauthenticated()
    return token.strip()


async def optional_principal(request: Request) -> Principal | None:
    """The caller, or None for one who shows no token. A bad token is refused all the same."""
    token = bearer_token(request)
    if token is None:
        return None
    verifier: TokenVerifier = request.app.state.verifier
    return await verifier.verify(token)


async def current_principal(
    principal: Annotated[Principal | None, Depends(optional_principal)],
) -> Principal:
    """The caller. Raises Problem 401 without a token."""
    if principal is None:
        raise unauthenticated()
    return principal


CurrentPrincipal = Annotated[Principal, Depends(current_principal)]
OptionalPrincipal = Annotated[Principal | None, Depends(optional_principal)]
