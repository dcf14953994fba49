"""Secrets at rest."""

import pytest

from common.sealing import Sealer, WrongSecret, derive_key

SEALER = Sealer(derive_key("k" * 32, "a purpose"))


def test_a_sealed_value_opens_only_with_its_secret_its_purpose_and_its_name() -> None:
    sealed = SEALER.seal(b"secret", name="row")
    assert SEALER.unseal(sealed, name="row") == b"secret"
    assert b"secret" not in sealed
    strangers = (
        (Sealer(derive_key("K" * 32, "a purpose")), "row"),
        (Sealer(derive_key("k" * 32, "another")), "row"),
        (SEALER, "other"),
    )
    for sealer, name in strangers:
        with pytest.raises(WrongSecret):
            sealer.unseal(sealed, name=name)


def test_a_sealed_value_that_was_changed_or_cut_does_not_open() -> None:
    sealed = SEALER.seal(b"secret", name="row")
    for damaged in (sealed[:-1] + bytes([sealed[-1] ^ 1]), sealed[:-1]):
        with pytest.raises(WrongSecret):
            SEALER.unseal(damaged, name="row")


def test_the_same_value_is_sealed_differently_each_time() -> None:
    assert SEALER.seal(b"secret", name="row") != SEALER.seal(b"secret", name="row")
