"""Password checks: bounded, off the event loop, and as long for nobody as for somebody."""

import asyncio

import pytest

from common.problems import Problem
from identity.passwords import Passwords


async def test_a_password_matches_its_hash_and_no_other() -> None:
    passwords = Passwords(at_once=1, waiting_max=10)
    stored = await passwords.hash("an invented passphrase")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify(stored, "an invented passphrase")
    assert not await passwords.verify(stored, "another passphrase")
    assert not passwords.needs_rehash(stored)
    assert passwords.needs_rehash(stored.replace("t=2", "t=1"))


@pytest.mark.parametrize("stored", [None, "", "plain", "$argon2id$broken"])
async def test_what_is_no_hash_matches_nothing(stored: str | None) -> None:
    passwords = Passwords(at_once=1, waiting_max=10)
    assert not await passwords.verify(stored, "nobody's password")
    assert not await passwords.verify(stored, "")


async def test_who_finds_the_queue_full_is_told_to_come_back() -> None:
    passwords = Passwords(at_once=1, waiting_max=2)
    outcomes = await asyncio.gather(
        *(passwords.verify(None, "guess") for _ in range(6)), return_exceptions=True
    )
    busy = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
    assert [(problem.status, problem.code) for problem in busy] == [(503, "too_busy")] * 3
    assert busy[0].headers["Retry-After"] == "2"
    # The queue is empty again.
    assert not await passwords.verify(None, "guess")


async def test_a_fingerprint_is_stable_and_needs_the_salt() -> None:
    passwords = Passwords(at_once=1, waiting_max=10)
    first = await passwords.fingerprint(b"s" * 16, "one", "two")
    assert await passwords.fingerprint(b"s" * 16, "one", "two") == first
    assert await passwords.fingerprint(b"t" * 16, "one", "two") != first
    assert await passwords.fingerprint(b"s" * 16, "one", "three") != first
