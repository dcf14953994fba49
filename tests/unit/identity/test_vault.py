"""Derived secrets, and which key signs when."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from identity.keys import SigningKey, choose_signer, is_published, make_key, needs_rotation
from identity.vault import Vault, hash_credential

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
VAULT = Vault("k" * 32)


def test_a_credential_hash_is_the_one_of_the_contract() -> None:
    expected = hmac.new(b"p" * 32, b"uid:04A3B2C1", hashlib.sha256).hexdigest()
    assert hash_credential("p" * 32, "uid", "04A3B2C1") == expected


def test_a_machine_secret_can_be_derived_again_and_is_another_for_every_generation() -> None:
    reader = UUID(int=1)
    first = VAULT.machine_secret("reader", reader, 1)
    assert Vault("k" * 32).machine_secret("reader", reader, 1) == first
    others = {
        VAULT.machine_secret("reader", reader, 2),
        VAULT.machine_secret("client", reader, 1),
        VAULT.machine_secret("reader", UUID(int=2), 1),
        Vault("K" * 32).machine_secret("reader", reader, 1),
    }
    assert first not in others
    assert len(others) == 4
    assert len(first) == 43


def test_what_was_sealed_and_derived_by_earlier_versions_is_still_known() -> None:
    """A network keeps its signing keys, and readers, browsers and services what they were given."""
    sealed = bytes.fromhex(
        "d14c2d71dc25e71433711747686d0fe31ac07623c54b372772b77717476b62d279ff95b26a8146ff10553ec1"
    )
    assert VAULT.signing_keys.unseal(sealed, name="kid") == b"the private half"
    secret = VAULT.machine_secret("reader", UUID(int=1), 1)
    assert secret == "_4FiD9m9cBuBJpH8va-BwZM_TUm49umL7p4ECFRAQbg"
    fingerprint = VAULT.fingerprint("uid", "04")
    assert fingerprint == "54e7779c2b5230e6897af8b96b4d044575724d33a26ee8304c6245121c8d4e9a"
    assert VAULT.password_salt.hex() == "c1e50a6c50e85561fdb7258a3f803f11"
    push_number = 83888907722041950815745733809171815914635005534974952045673913019632654205551
    assert VAULT.push_key.private_numbers().private_value == push_number


def test_the_key_set_shows_no_private_half() -> None:
    key = make_key(VAULT, signs_from=NOW, now=NOW)
    assert set(key.jwk()) == {"kty", "crv", "x", "kid", "use", "alg"}


def key(name: str, signs_from: datetime, published_until: datetime | None) -> SigningKey:
    return SigningKey(name, b"", b"", NOW, signs_from, published_until)


def test_the_newest_key_signs_once_its_time_has_come() -> None:
    old = key("old", NOW - timedelta(days=30), NOW + timedelta(hours=2))
    next_one = key("next", NOW + timedelta(hours=1), None)
    assert choose_signer([old, next_one], NOW) == old
    assert choose_signer([old, next_one], NOW + timedelta(hours=1)) == next_one
    assert choose_signer([next_one], NOW) is None
    assert choose_signer([], NOW) is None


@given(st.lists(st.tuples(st.integers(-50, 50), st.none() | st.integers(-50, 50)), max_size=6))
def test_a_key_that_signs_is_published(times: list[tuple[int, int | None]]) -> None:
    keys = [
        key(
            str(index),
            NOW + timedelta(minutes=start),
            None if end is None else NOW + timedelta(minutes=end),
        )
        for index, (start, end) in enumerate(times)
    ]
    signer = choose_signer(keys, NOW)
    if signer is not None:
        assert is_published(signer, NOW)
        assert signer.signs_from <= NOW


def test_a_key_is_rotated_by_its_age_and_a_waiting_one_counts() -> None:
    month = timedelta(days=30)
    assert needs_rotation([], month, NOW)
    assert needs_rotation([key("old", NOW - month, None)], month, NOW)
    waiting = key("next", NOW + timedelta(hours=1), None)
    assert not needs_rotation([key("old", NOW - month, None), waiting], month, NOW)
