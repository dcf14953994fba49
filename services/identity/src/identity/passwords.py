"""Passwords with Argon2id, in threads, a bounded number at a time."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type, hash_secret_raw

from common.problems import Problem

# OWASP's recommendation for Argon2id with one lane: 19 MiB, two passes; about 25 ms a core.
TIME_COST = 2
MEMORY_KIB = 19 * 1024
PARALLELISM = 1

P = ParamSpec("P")
T = TypeVar("T")


class Passwords:
    """Hashes and checks. Who finds the queue full is told to come back, and nobody else waits."""

    def __init__(self, *, at_once: int, waiting_max: int) -> None:
        self._hasher = PasswordHasher(
            time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=PARALLELISM
        )
        self._turns = asyncio.Semaphore(at_once)
        self._present = 0
        self._present_max = at_once + waiting_max
        # What an unknown login is checked against, so that the answer takes as long.
        self._nobody = self._hasher.hash("nobody's password")

    async def hash(self, password: str) -> str:
        """The PHC string to store. Raises Problem 503 when too many wait already."""
        return await self._in_turn(self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether it is the password; takes as long when there is none stored.

        Raises Problem 503 when too many wait already.
        """
        matches = await self._in_turn(self._matches, stored or self._nobody, password)
        return matches and bool(stored)

    async def fingerprint(self, salt: bytes, *passwords: str) -> str:
        """Tells two requests with passwords apart. As slow to search through as a stored hash.

        `salt`: 16 secret bytes. Raises Problem 503 when too many wait already.
        """
        secret = "\0".join(passwords).encode()
        raw = await self._in_turn(
            hash_secret_raw, secret, salt, TIME_COST, MEMORY_KIB, PARALLELISM, 32, Type.ID
        )
        return raw.hex()

    def needs_rehash(self, stored: str) -> bool:
        return self._hasher.check_needs_rehash(stored)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_turn(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._present >= self._present_max:
            raise Problem(
                503, "too_busy", "Too many logins at this moment.", headers={"Retry-After": "2"}
            )
        self._present += 1
        try:
            async with self._turns:
                # argon2 releases the interpreter's lock: the event loop goes on meanwhile.
                return await asyncio.to_thread(work, *args, **kwargs)
        finally:
            self._present -= 1
