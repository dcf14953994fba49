"""How a credential is named outside the card."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copass_tap.credentials import credential_hash, normalise_uid


@pytest.mark.parametrize(
    ("text", "uid"),
    [
        ("04a2b1c3d4e5f6", "04A2B1C3D4E5F6"),
        ("04:a2:b1:c3:d4:e5:f6", "04A2B1C3D4E5F6"),
        ("DE-AD-BE-EF", "DEADBEEF"),
        ("DE AD BE EF", "DEADBEEF"),
        ("0102030405060708090A", "0102030405060708090A"),
    ],
)
def test_a_uid_is_read_with_and_without_separators(text: str, uid: str) -> None:
    assert normalise_uid(text) == uid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "04A2B1C3D4E5F",
        "04A2B1C3D4E5F6A7",
        "DE:AD-BE:EF",
        "D:EA:DB:EE:F",
        ":DEADBEEF",
        "DE::AD:BE:EF",
        "DEAD:BEEF",
        "DEADBEEG",
        "٠٤A2B1C3D4E5F6",  # Arabic digits
        "DEADBEEF\n",
        "00000000",
        "FFFFFFFFFFFFFF",
        "08ADBEEF",
        "88ADBEEF",
        "0x04A2B1C3",
    ],
)
def test_what_could_be_read_in_two_ways_is_no_uid(text: str) -> None:
    assert normalise_uid(text) is None


@given(st.text("0123456789abcdefF:- g", max_size=24))
def test_a_uid_stays_what_it_is_when_read_again(text: str) -> None:
    uid = normalise_uid(text)
    assert uid is None or normalise_uid(uid) == uid


def test_the_credential_hash_is_an_hmac_of_type_and_credential() -> None:
    # echo -n 'uid:04A2B1C3D4E5F6' | openssl dgst -sha256 -hmac "$(printf 'p%.0s' {1..32})"
    assert credential_hash(b"p" * 32, "uid", "04A2B1C3D4E5F6") == HASH


HASH = "ab6685561d1543f33a716ccf0440a4c73012831259f743ced8d174b885224bf1"
