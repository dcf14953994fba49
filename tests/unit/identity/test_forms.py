"""The form of the token endpoint, and the addresses that failures are counted for."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.oauth import OAuthError, parse_form, read_basic
from identity.oauth_routes import counted_address

FORM = "application/x-www-form-urlencoded"


def test_a_form_is_read_and_an_empty_value_counts_as_left_out() -> None:
    form = parse_form(
        b"grant_type=password&username=&audience=access+places&audience=identity", FORM
    )
    assert form.fields == {"grant_type": "password"}
    assert form.audiences == ("access", "places", "identity")


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (b"a=1&a=2", FORM),
        (b"a=%00", FORM),
        (b"a=%ff", FORM),
        (b"\xff=1", FORM),
        (b"nonsense", FORM),
        (b"a=" + b"x" * 20_000, FORM),
        (b"&".join(b"a%d=1" % n for n in range(30)), FORM),
        (b'{"grant_type":"password"}', "application/json"),
        (b"a=1", ""),
        (b"a=1", "text/plain"),
    ],
)
def test_a_malformed_form_is_an_invalid_request(body: bytes, media: str) -> None:
    with pytest.raises(OAuthError) as refused:
        parse_form(body, media)
    assert refused.value.error == "invalid_request"


@given(st.binary(max_size=200))
def test_any_body_is_a_form_or_an_invalid_request(body: bytes) -> None:
    refused = None
    try:
        parse_form(body, FORM)
    except OAuthError as error:
        refused = error
    if refused is not None:
        assert refused.error == "invalid_request"
        assert all(" " <= character <= "~" for character in refused.description)
        assert not set(refused.description) & set('"\\')


def test_basic_credentials_are_form_encoded_inside() -> None:
    encoded = base64.b64encode(b"an%20id:s%3Aecret").decode()
    assert read_basic(f"Basic {encoded}") == ("an id", "s:ecret")


@pytest.mark.parametrize("header", ["", "Basic", "Basic !!!", "Bearer abc", "Basic YWJj"])
def test_malformed_basic_credentials_are_an_invalid_client(header: str) -> None:
    with pytest.raises(OAuthError) as refused:
        read_basic(header)
    assert refused.value.error == "invalid_client"
    assert refused.value.status == 401


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_an_ipv6_customer_is_one_address(host: str, counted: str) -> None:
    assert counted_address(host) == counted
