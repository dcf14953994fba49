"""How often a login may fail.

The counts lie in PostgreSQL, not in memory: several API processes share them and a restart does not
forget them, so an attacker gains nothing from either. It costs one small statement for each
attempt, beside an Argon2 check that costs a hundred times as much.
"""

from datetime import timedelta
from math import ceil
from uuid import UUID

import asyncpg
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter

from common.clock import Clock
from common.db import Pool
from common.problems import Problem
from identity.vault import Vault


class PostgresCounters(Storage):
    """Counters of `limits`, in the table login_failures. Each call is one statement."""

    STORAGE_SCHEME = ["copass-identity"]  # noqa: RUF012 - the base class declares a plain list

    def __init__(self, pool: Pool, clock: Clock) -> None:
        super().__init__()
        self.pool = pool
        self.clock = clock

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        return asyncpg.PostgresError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count, starting a new window of `expiry` seconds where the last one is over."""
        now = self.clock()
        count: int = await self.pool.fetchval(
            "INSERT INTO login_failures AS known (key, failures, expires_at) VALUES ($1, $2, $3)"
            " ON CONFLICT (key) DO UPDATE SET"
            " failures = CASE WHEN known.expires_at <= $4 THEN 0 ELSE known.failures END + $2,"
            " expires_at = CASE WHEN known.expires_at <= $4 THEN $3 ELSE known.expires_at END"
            " RETURNING failures",
            key,
            amount,
            now + timedelta(seconds=expiry),
            now,
        )
        return count

    async def get(self, key: str) -> int:
        count: int | None = await self.pool.fetchval(
            "SELECT failures FROM login_failures WHERE key = $1 AND expires_at > $2",
            key,
            self.clock(),
        )
        return count or 0

    async def get_expiry(self, key: str) -> float:
        now = self.clock()
        expires_at = await self.pool.fetchval(
            "SELECT expires_at FROM login_failures WHERE key = $1 AND expires_at > $2", key, now
        )
        return float((expires_at or now).timestamp())

    async def check(self) -> bool:
        return bool(await self.pool.fetchval("SELECT true"))

    async def reset(self) -> int | None:
        return int((await self.pool.execute("DELETE FROM login_failures")).split()[-1])

    async def clear(self, key: str) -> None:
        await self.pool.execute("DELETE FROM login_failures WHERE key = $1", key)


class LoginThrottle:
    """Three limits: of a login from an address, of an address, and of a login from anywhere.

    The third is far higher than the first: it stops a crowd of addresses, and must not let one
    stranger shut the owner out.
    """

    def __init__(
        self,
        pool: Pool,
        vault: Vault,
        clock: Clock,
        *,
        pair_max: int,
        address_max: int,
        login_max: int,
    ) -> None:
        self.vault = vault
        self.clock = clock
        self.limiter = FixedWindowRateLimiter(PostgresCounters(pool, clock))
        self.pair = RateLimitItemPerMinute(pair_max, 15, namespace="pair")
        self.address = RateLimitItemPerMinute(address_max, 15, namespace="address")
        self.login = RateLimitItemPerHour(login_max, 1, namespace="login")

    async def admit(self, login: str, address: str) -> int | None:
        """None when the attempt may go on, else the seconds to wait.

        The pair is counted before the check, so that a hundred attempts at once are not all the
        first; `succeeded` takes it back.
        """
        pair = self._key(f"{login} {address}")
        for item, key in ((self.address, self._key(address)), (self.login, self._key(login))):
            if not await self.limiter.test(item, key):
                return await self._wait_seconds(item, key)
        if not await self.limiter.hit(self.pair, pair):
            return await self._wait_seconds(self.pair, pair)
        return None

    async def failed(self, login: str, address: str) -> None:
        await self.limiter.hit(self.address, self._key(address))
        await self.limiter.hit(self.login, self._key(login))

    async def succeeded(self, login: str, address: str) -> None:
        await self.limiter.clear(self.pair, self._key(f"{login} {address}"))

    async def admit_own_password(self, member_id: UUID) -> None:
        """Before somebody signed in proves their own password again, from whatever address.

        Raises Problem 429 after too many failures.
        """
        wait_seconds = await self.admit(f"password {member_id}", str(member_id))
        if wait_seconds is not None:
            raise Problem(
                429,
                "too_many_attempts",
                f"Too many failed attempts, try again in {wait_seconds} seconds.",
                headers={"Retry-After": str(wait_seconds)},
            )

    async def own_password_succeeded(self, member_id: UUID) -> None:
        await self.succeeded(f"password {member_id}", str(member_id))

    def _key(self, text: str) -> str:
        return self.vault.fingerprint("login failures", text)

    async def _wait_seconds(self, item: RateLimitItem, key: str) -> int:
        stats = await self.limiter.get_window_stats(item, key)
        return max(1, ceil(stats.reset_time - self.clock().timestamp()))
