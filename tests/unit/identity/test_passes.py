"""Who may invite whom and until when; what is the key of a phone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from copass_tap.passes import read_guest
from copass_tap.signatures import read_public_key
from identity.domain import Malformed, Member
from identity.passes.domain import may_invite, may_look_after, read_validity
from identity.passes.keys import check_public_key
from identity.passes.routes import GUEST_PREFIX
from identity.vault import Vault, to_base64url

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
HOME, WORK, ELSEWHERE, UNHEARD = (UUID(int=number) for number in range(1, 5))
CITIES = {str(HOME): "nantes", str(WORK): "nantes", str(ELSEWHERE): "rennes"}
LISE = Member(
    UUID(int=9), "nantes", "Lise", None, "active", frozenset({"resident"}),
    {str(HOME): "resident", str(WORK): "staff"}, 1, NOW,
)  # fmt: skip
STEWARD = replace(LISE, roles=frozenset({"steward"}), places={})


@pytest.mark.parametrize(
    ("host", "places", "may"),
    [
        (LISE, [HOME], True),
        (LISE, [HOME, WORK], True),
        (LISE, [HOME, ELSEWHERE], False),
        (LISE, [UNHEARD], False),
        (replace(LISE, places={str(UNHEARD): "staff"}), [UNHEARD], False),
        (replace(LISE, places={str(ELSEWHERE): "staff"}), [ELSEWHERE], True),
        (replace(LISE, places={}), [HOME], False),
        (replace(LISE, places={str(HOME): "warden"}), [HOME], True),
        (replace(LISE, places={str(HOME): "keyholder"}), [HOME], False),
        (replace(LISE, status="suspended"), [HOME], False),
        (replace(LISE, city_id=None), [HOME], False),
        (STEWARD, [HOME, WORK], True),
        (STEWARD, [ELSEWHERE], False),
        (replace(STEWARD, roles=frozenset({"operator", "mediator"})), [HOME], False),
    ],
)
def test_who_lives_or_works_there_invites_and_the_stewards_of_the_city(
    host: Member, places: list[UUID], may: bool
) -> None:
    assert may_invite(host, places, CITIES) is may


def test_the_guests_of_a_place_are_seen_by_its_staff_and_stewards_alone() -> None:
    assert may_look_after(LISE, WORK, CITIES)
    assert not may_look_after(LISE, HOME, CITIES)  # who lives there sees their own guests
    assert not may_look_after(LISE, ELSEWHERE, CITIES)
    assert may_look_after(STEWARD, HOME, CITIES)
    assert not may_look_after(STEWARD, ELSEWHERE, CITIES)
    assert not may_look_after(replace(STEWARD, status="suspended"), HOME, CITIES)
    assert not may_look_after(None, HOME, CITIES)


def test_a_guest_stays_a_day_unless_something_else_is_said() -> None:
    assert read_validity(None, None, NOW) == (NOW, NOW + timedelta(days=1))
    later = NOW + timedelta(days=3)
    assert read_validity(later, None, NOW) == (later, later + timedelta(days=1))
    fortnight = NOW + timedelta(days=14)
    assert read_validity(None, fortnight, NOW) == (NOW, fortnight)


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        (timedelta(hours=-1), None),
        (timedelta(days=91), None),
        (None, timedelta(0)),
        (None, timedelta(days=-1)),
        (None, timedelta(days=14, seconds=1)),
        (timedelta(days=2), timedelta(days=1)),
        (timedelta(minutes=-5), timedelta(minutes=-1)),
    ],
)
def test_other_times_are_refused(begins: timedelta | None, ends: timedelta | None) -> None:
    with pytest.raises(Malformed):
        read_validity(
            NOW + begins if begins is not None else None,
            NOW + ends if ends is not None else None,
            NOW,
        )


def test_the_key_of_a_phone_is_the_same_to_identity_and_at_the_door() -> None:
    def written(curve: ec.EllipticCurve, form: PublicFormat) -> str:
        key = ec.generate_private_key(curve).public_key()
        return to_base64url(key.public_bytes(Encoding.X962, form))

    good = written(ec.SECP256R1(), PublicFormat.UncompressedPoint)
    assert check_public_key(good) == good
    bad = [
        written(ec.SECP256R1(), PublicFormat.CompressedPoint),
        written(ec.SECP384R1(), PublicFormat.UncompressedPoint),
        written(ec.SECP256K1(), PublicFormat.UncompressedPoint),
        good[:-1],
        good + "=",
        good[:-1] + chr(ord(good[-1]) + 1),  # other bits to spare
        to_base64url(b"\x04" + bytes(64)),
        "",
    ]
    for text in bad:
        assert read_public_key(text) is None
        with pytest.raises(Malformed):
            check_public_key(text)


def test_the_secret_of_a_guest_has_128_bits_that_a_door_can_read() -> None:
    vault = Vault("key secret " * 4)
    secrets = {vault.guest_secret(UUID(int=number)) for number in range(100)}
    assert len(secrets) == 100
    assert {len(secret) for secret in secrets} == {16}
    assert vault.guest_secret(HOME) == Vault("key secret " * 4).guest_secret(HOME)
    assert vault.guest_secret(HOME) != Vault("another key secret " * 4).guest_secret(HOME)
    assert read_guest(GUEST_PREFIX + "A" * 26) == "A" * 26
