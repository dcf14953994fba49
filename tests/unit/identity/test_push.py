"""Web push: the standard's own example, and the addresses that nobody is led to."""

import base64
import ipaddress
from datetime import UTC, datetime
from typing import Any

import httpcore
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from identity.notices.domain import Away, Gone, Outcome, Refused, Sent
from identity.notices.push import (
    PAYLOAD_BYTES_MAX,
    Malformed,
    NotPublic,
    PublicInternet,
    authorization,
    encrypt,
    is_public,
    judge_status,
    read_endpoint,
    read_keys,
    to_point,
)
from identity.vault import Vault


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# RFC 8291, appendix A.
AUTH = decode("BTBZMqHH6r4Tts7J_aSIgg")
SALT = decode("DGv6ra1nlYgDCS1FRnbzlw")
BROWSER = decode(
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
)
OWN = decode("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw")
SEALED = decode(
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS"
    "6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qu"
    "lcy4a-fN"
)


def test_it_encrypts_as_the_standards_example() -> None:
    own_key = ec.derive_private_key(int.from_bytes(OWN), ec.SECP256R1())
    sealed = encrypt(
        b"When I grow up, I want to be a watermelon",
        p256dh=BROWSER,
        auth=AUTH,
        own_key=own_key,
        salt=SALT,
    )
    assert sealed == SEALED


def test_a_message_fits_one_record_or_is_refused() -> None:
    own_key = ec.generate_private_key(ec.SECP256R1())
    common: dict[str, Any] = {"p256dh": BROWSER, "auth": AUTH, "own_key": own_key, "salt": SALT}
    assert len(encrypt(b"x" * PAYLOAD_BYTES_MAX, **common)) == 4096
    with pytest.raises(ValueError, match="too large"):
        encrypt(b"x" * (PAYLOAD_BYTES_MAX + 1), **common)


def test_we_are_known_by_one_key_that_signs_for_one_service() -> None:
    key = Vault("key secret " * 4).push_key
    assert to_point(Vault("key secret " * 4).push_key.public_key()) == to_point(key.public_key())
    assert to_point(Vault("key Secret " * 4).push_key.public_key()) != to_point(key.public_key())
    now = datetime.now(UTC)
    header = authorization(
        "https://push.example/send/abc", key, contact="mailto:a@b.example", now=now
    )
    scheme, _, rest = header.partition(" ")
    token, _, public = rest.removeprefix("t=").partition(", k=")
    claims = jwt.decode(token, key.public_key(), ["ES256"], audience="https://push.example")
    assert scheme == "vapid"
    assert decode(public) == to_point(key.public_key())
    assert claims["sub"] == "mailto:a@b.example"
    assert 0 < claims["exp"] - now.timestamp() <= 24 * 3600
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(token, key.public_key(), ["ES256"], audience="https://other.example")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.0.8",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd12:3456::1",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "2001:db8::1",
    ],
)
async def test_no_address_inside_is_ever_connected_to(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))

    async def leads_there(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34", address]  # one good one among them does not help

    with pytest.raises(NotPublic):
        await PublicInternet(resolve=leads_there).connect_tcp("push.example", 443)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1"])
def test_the_open_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


async def test_nothing_but_https_has_a_door() -> None:
    async def public(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34"]

    async def nowhere(_host: str, _port: int) -> list[str]:
        return []

    for port in (22, 25, 80, 8001):
        with pytest.raises(NotPublic):
            await PublicInternet(resolve=public).connect_tcp("push.example", port)
    with pytest.raises(NotPublic):
        await PublicInternet(resolve=nowhere).connect_tcp("push.example", 443)
    with pytest.raises(NotPublic):
        await PublicInternet().connect_unix_socket("/run/postgresql/.s.PGSQL.5432")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost"])
async def test_other_ways_of_writing_loopback_lead_nowhere_either(host: str) -> None:
    with pytest.raises((NotPublic, OSError)):
        await PublicInternet().connect_tcp(host, 443)


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://updates.push.services.example/wpush/v2/gAAA_-x",
        "https://push.example:443/a?b=c",
        "https://PUSH.example./a",
    ],
)
def test_the_address_of_a_push_service_is_taken(endpoint: str) -> None:
    assert read_endpoint(endpoint) == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://push.example/a",
        "ftp://push.example/a",
        "//push.example/a",
        "https:///a",
        "https://localhost/a",
        "https://identity:8001/a",
        "https://127.0.0.1/a",
        "https://2130706433/a",
        "https://0x7f.1/a",
        "https://[::1]/a",
        "https://[::1/a",
        "https://push.example:8443/a",
        "https://push.example:x/a",
        "https://me@push.example/a",
        "https://push.example/a#b",
        "https://push.example/a b",
        "https://push.example/a\r\nHost: evil",
        "https://pusch.ехаmple/a",
        "javascript:alert(1)",
        "",
    ],
)
def test_another_address_is_not(endpoint: str) -> None:
    with pytest.raises(Malformed):
        read_endpoint(endpoint)


def test_the_keys_of_a_browser_are_checked() -> None:
    read_keys(BROWSER, AUTH)
    for key in (b"", BROWSER[:-1], b"\x04" + bytes(64), b"\x02" + BROWSER[1:33]):
        with pytest.raises(Malformed) as raised:
            read_keys(key, AUTH)
        assert raised.value.field == "p256dh"
    with pytest.raises(Malformed) as raised:
        read_keys(BROWSER, AUTH[:-1])
    assert raised.value.field == "auth"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (201, Sent()),
        (202, Sent()),
        (404, Gone()),
        (410, Gone()),
        (400, Refused("http_400")),
        (403, Refused("http_403")),
        (413, Refused("http_413")),
        (301, Refused("http_301")),
        (429, Away("http_429")),
        (500, Away("http_500")),
        (503, Away("http_503")),
    ],
)
def test_what_a_push_service_answers(status: int, outcome: Outcome) -> None:
    assert judge_status(status, {}) == outcome


def test_retry_after_is_read_in_seconds_and_never_for_ever() -> None:
    for value, seconds in ((b"120", 120), (b"9999999", 86400)):
        outcome = judge_status(503, {b"Retry-After": value})
        assert isinstance(outcome, Away)
        assert outcome.wait
        assert outcome.wait.total_seconds() == seconds
    for value in (b"Sun, 22 Nov 2026 12:00:00 GMT", b"-5", b"1e9", b"9" * 400):
        assert judge_status(503, {b"retry-after": value}) == Away("http_503")


def test_the_backend_is_one_that_the_client_accepts() -> None:
    assert isinstance(PublicInternet(), httpcore.AsyncNetworkBackend)
