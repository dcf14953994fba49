"""The keys that sign access tokens: kept sealed in the database, published, rotated.

A life of a key: made and published at once, but signing only from `signs_from`, so that every
verifier has heard of it; its successor sets `published_until`, late enough for the last token that
it signed. Of the keys whose `signs_from` has come, the newest signs.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.clock import Clock
from common.db import Conn, Pool
from common.logging import get_logger
from identity.vault import Vault, to_base64url

# Held until the end of the transaction: two processes that find no key, or an old one, make one.
ROTATION_LOCK = 7_203_101
ACCESS_TOKEN_LIFETIME = timedelta(minutes=10)
# Verifiers accept a token for some seconds after it expired.
RETIREMENT_MARGIN = timedelta(minutes=2)
# Well below the time between a key's publication and its first signature.
RELOAD_AFTER = timedelta(seconds=15)

log = get_logger(__name__)


class NoSigningKey(Exception):
    """The database has no key that may sign yet."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    kid: str
    public_key: bytes
    private_key_sealed: bytes
    created_at: datetime
    signs_from: datetime
    published_until: datetime | None

    def jwk(self) -> dict[str, str]:
        """The public half (RFC 8037)."""
        members = thumbprint_members(self.public_key)
        return {**members, "kid": self.kid, "use": "sig", "alg": "EdDSA"}


def thumbprint_members(public_key: bytes) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": to_base64url(public_key)}


def thumbprint(public_key: bytes) -> str:
    """The key's id: its JWK thumbprint (RFC 7638)."""
    canonical = orjson.dumps(thumbprint_members(public_key), option=orjson.OPT_SORT_KEYS)
    return to_base64url(hashlib.sha256(canonical).digest())


def make_key(vault: Vault, *, signs_from: datetime, now: datetime) -> SigningKey:
    """A new key pair, the private half sealed and bound to its key id."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    kid = thumbprint(public)
    sealed = vault.signing_keys.seal(private.private_bytes_raw(), name=kid)
    return SigningKey(kid, public, sealed, now, signs_from, None)


def choose_signer(keys: Sequence[SigningKey], now: datetime) -> SigningKey | None:
    """The key that signs at `now`: the newest of those whose time has come."""
    ready = [key for key in keys if key.signs_from <= now and is_published(key, now)]
    return max(ready, key=lambda key: (key.signs_from, key.kid), default=None)


def is_published(key: SigningKey, now: datetime) -> bool:
    return key.published_until is None or now < key.published_until


def needs_rotation(keys: Sequence[SigningKey], rotate_after: timedelta, now: datetime) -> bool:
    """Whether the newest key, signing or about to, has been there for long enough."""
    newest = max((key.signs_from for key in keys), default=None)
    return newest is None or newest + rotate_after <= now


# The database's side


async def load_keys(conn: Conn | Pool, now: datetime) -> list[SigningKey]:
    """The keys that are published at `now`, oldest first."""
    rows = await conn.fetch(
        "SELECT kid, public_key, private_key_sealed, created_at, signs_from, published_until"
        " FROM signing_key WHERE published_until IS NULL OR published_until > $1"
        " ORDER BY signs_from, kid",
        now,
    )
    return [SigningKey(**row) for row in rows]


async def insert_key(conn: Conn, key: SigningKey) -> None:
    await conn.execute(
        "INSERT INTO signing_key"
        " (kid, public_key, private_key_sealed, created_at, signs_from, published_until)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        key.kid,
        key.public_key,
        key.private_key_sealed,
        key.created_at,
        key.signs_from,
        key.published_until,
    )


async def lock_rotation(conn: Conn) -> None:
    await conn.execute("SELECT pg_advisory_xact_lock($1)", ROTATION_LOCK)


async def ensure_key(pool: Pool, vault: Vault, now: datetime) -> None:
    """Make the very first key, which signs at once: nobody has kept an older key set."""
    async with pool.acquire() as conn, conn.transaction():
        await lock_rotation(conn)
        if choose_signer(await load_keys(conn, now), now) is None:
            key = make_key(vault, signs_from=now, now=now)
            await insert_key(conn, key)
            log.info("signing_key_made", kid=key.kid)


async def rotate(
    pool: Pool, vault: Vault, *, publish_ahead: timedelta, now: datetime
) -> SigningKey:
    """Publish the next key, to sign after `publish_ahead`; set the end of those before it.

    When a next key is already waiting for its time, nothing changes and that one is returned.
    """
    async with pool.acquire() as conn, conn.transaction():
        await lock_rotation(conn)
        keys = await load_keys(conn, now)
        waiting = [key for key in keys if key.signs_from > now]
        if waiting:
            return waiting[-1]
        signs_from = now + publish_ahead if keys else now
        await retire(conn, signs_from + ACCESS_TOKEN_LIFETIME + RETIREMENT_MARGIN)
        key = make_key(vault, signs_from=signs_from, now=now)
        await insert_key(conn, key)
        log.info("signing_key_rotated", kid=key.kid, signs_from=signs_from.isoformat())
        return key


async def rotate_if_old(
    pool: Pool, vault: Vault, *, rotate_after: timedelta, publish_ahead: timedelta, now: datetime
) -> None:
    """The worker's routine; several workers agree because `rotate` looks again under the lock."""
    if needs_rotation(await load_keys(pool, now), rotate_after, now):
        await rotate(pool, vault, publish_ahead=publish_ahead, now=now)


async def replace_compromised(pool: Pool, vault: Vault, now: datetime) -> SigningKey:
    """Withdraw every key at once and sign with a new one: all access tokens end.

    Verifiers that keep the key set for some minutes trust the old keys for that long.
    """
    async with pool.acquire() as conn, conn.transaction():
        await lock_rotation(conn)
        await conn.execute(
            "UPDATE signing_key SET published_until = $1"
            " WHERE published_until IS NULL OR published_until > $1",
            now,
        )
        key = make_key(vault, signs_from=now, now=now)
        await insert_key(conn, key)
        log.warning("signing_keys_withdrawn", kid=key.kid)
        return key


async def retire(conn: Conn, published_until: datetime) -> None:
    await conn.execute(
        "UPDATE signing_key SET published_until = $1 WHERE published_until IS NULL",
        published_until,
    )


async def delete_retired(conn: Conn, now: datetime) -> None:
    """Forget private keys that nobody trusts any more."""
    await conn.execute("DELETE FROM signing_key WHERE published_until < $1", now)


class KeyRing:
    """The keys as this process knows them, read again every 15 seconds."""

    def __init__(self, pool: Pool, vault: Vault, clock: Clock) -> None:
        self.pool = pool
        self.vault = vault
        self.clock = clock
        self._keys: list[SigningKey] = []
        self._loaded_at: datetime | None = None
        self._opened: dict[str, Ed25519PrivateKey] = {}

    async def signer(self) -> tuple[str, Ed25519PrivateKey]:
        """Key id and private key that sign now.

        Raises NoSigningKey, or WrongSecret when the key was sealed with another `key_secret`.
        """
        now = self.clock()
        key = choose_signer(await self._current(now), now)
        if key is None:
            raise NoSigningKey("there is no signing key")
        if key.kid not in self._opened:
            raw = self.vault.signing_keys.unseal(key.private_key_sealed, name=key.kid)
            self._opened = {key.kid: Ed25519PrivateKey.from_private_bytes(raw)}
        return key.kid, self._opened[key.kid]

    async def key_set(self) -> dict[str, Any]:
        """The JWK set: what signs now, what will, and what signed tokens that still live."""
        now = self.clock()
        keys = await self._current(now)
        return {"keys": [key.jwk() for key in keys if is_published(key, now)]}

    async def _current(self, now: datetime) -> list[SigningKey]:
        if self._loaded_at is None or now - self._loaded_at > RELOAD_AFTER:
            try:
                self._keys = await load_keys(self.pool, now)
            except (asyncpg.PostgresError, OSError):
                # What was read before stays right: a database that is away rotates nothing.
                if not self._keys:
                    raise
                log.warning("signing_keys_not_reloaded")
            self._loaded_at = now
        return self._keys
