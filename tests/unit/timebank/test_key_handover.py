"""The statement by which a city's key is handed over, and lists of them that are not to be
believed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from timebank.clearing.handover import (
    KEYS_MAX,
    Chain,
    WrongKeys,
    hand_over,
    public,
    read_chain,
)

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(1, 5)]
THIEF = Ed25519PrivateKey.from_private_bytes(b"t" * 32)


def chain_of(*sizes: int, city: str = "nantes", keys: list[Ed25519PrivateKey] = KEYS) -> Chain:
    """Nantes hands over once for each size."""
    chain = Chain(public(keys[0]))
    for number, size in enumerate(sizes):
        until = NOW + timedelta(days=7 + number)
        one = hand_over(city, chain, keys[number], keys[number + 1], from_size=size, until=until)
        chain = Chain(chain.first_key, (*chain.handovers, one))
    return chain


def test_what_is_published_is_read_back() -> None:
    chain = chain_of(5, 5, 9)
    assert read_chain("nantes", chain.listed()) == chain
    assert chain.keys == tuple(public(key) for key in KEYS)


def test_each_checkpoint_has_one_key() -> None:
    chain = chain_of(5, 5, 9)
    # Nothing was signed between the first two hand-overs: the second key signs no checkpoint.
    signers = [KEYS.index(key) for size in range(1, 11) for key in KEYS
               if public(key) == chain.key_at(size)]  # fmt: skip
    assert signers == [0, 0, 0, 0, 2, 2, 2, 2, 3, 3]


def test_an_old_key_is_believed_for_a_while() -> None:
    chain = chain_of(5)
    old, new = public(KEYS[0]), public(KEYS[1])
    later = NOW + timedelta(days=7, seconds=1)
    assert chain.believed(NOW, NOW) == [new, old]
    assert chain.believed(later, NOW) == [new]
    assert chain.believed(NOW, later) == [new]  # it says that it was written later


def test_what_was_signed_in_the_last_second_was_signed_in_time() -> None:
    until = NOW + timedelta(milliseconds=1)
    one = hand_over("nantes", Chain(public(KEYS[0])), *KEYS[:2], from_size=5, until=until)
    assert one.until == NOW + timedelta(seconds=1)
    assert Chain(one.old_key, (one,)).believed(until, until) == [one.new_key, one.old_key]


def tampered(what: str) -> list[dict[str, Any]]:
    listed = chain_of(5, 9).listed()
    other = chain_of(5, city="brest").listed()
    stolen = chain_of(5, keys=[THIEF, *KEYS[1:]]).listed()
    listed_by: dict[str, Any] = {
        "another city's statement": [listed[0], other[1]],
        "no statement": [listed[0], {**listed[1], "statement": None}],
        "another key": [listed[0], {**listed[1], "public_key": public(THIEF).hex()}],
        "another size": [listed[0], {**listed[1], "from_size": 4}],
        "a size that goes back": [listed[0], listed[1], {**listed[2], "from_size": 4}],
        "one left out": [listed[0], listed[2]],
        "another first key": [stolen[0], listed[1]],
        "a first key that signs late": [{**listed[0], "from_size": 1}],
        "a first key with a statement": [{**listed[0], "statement": listed[1]["statement"]}],
        "a key that comes back": [*listed, {**listed[1], "from_size": 9}],
        "later until": [listed[0], {**listed[1], "statement": listed[1]["statement"].replace(
            "until 17", "until 18")}],
        "signed by the old key alone": [listed[0], {**listed[1], "statement": without(
            listed[1]["statement"], 1)}],
        "signed by the new key alone": [listed[0], {**listed[1], "statement": without(
            listed[1]["statement"], 0)}],
        "nothing": [],
        "too many": [listed[0]] * (KEYS_MAX + 1),
        "no key": [{"public_key": "zz", "from_size": 0, "statement": None}],
    }  # fmt: skip
    chosen: list[dict[str, Any]] = listed_by[what]
    return chosen


def without(statement: str, number: int) -> str:
    """A statement without one of its two signatures."""
    text, signatures = statement.split("\n\n")
    lines = signatures.splitlines(keepends=True)
    assert len(lines) == 2
    return f"{text}\n\n{lines[1 - number]}"


@pytest.mark.parametrize(
    "what",
    [
        "another city's statement", "no statement", "another key", "another size",
        "a size that goes back", "one left out", "another first key",
        "a first key that signs late", "a first key with a statement", "a key that comes back",
        "later until", "signed by the old key alone", "signed by the new key alone", "nothing",
        "too many", "no key",
    ],
)  # fmt: skip
def test_a_list_that_was_tampered_with_is_refused(what: str) -> None:
    with pytest.raises(WrongKeys):
        read_chain("nantes", tampered(what))


def test_a_chain_goes_on_from_what_is_its_beginning_and_from_nothing_else() -> None:
    long, short = chain_of(5, 9), chain_of(5)
    forked = chain_of(5, keys=[KEYS[0], THIEF])
    resized = Chain(short.first_key, (replace(short.handovers[0], from_size=4),))
    assert long.goes_on_from(short)
    assert long.goes_on_from(Chain(long.first_key))
    assert not short.goes_on_from(long)
    assert not forked.goes_on_from(short)
    assert not long.goes_on_from(resized)
    assert long.up_to(public(KEYS[1])) == short
    assert long.up_to(public(THIEF)) == Chain(public(THIEF))


def test_only_the_newest_key_hands_over_and_only_so_often() -> None:
    with pytest.raises(WrongKeys, match="newest"):
        hand_over("nantes", chain_of(5), KEYS[0], THIEF, from_size=6, until=NOW)
    full = Chain(public(KEYS[0]), chain_of(5).handovers * (KEYS_MAX - 1))
    with pytest.raises(WrongKeys, match="at most"):
        hand_over("nantes", full, KEYS[1], THIEF, from_size=6, until=NOW)
