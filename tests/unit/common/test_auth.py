"""Forged and malformed tokens: each refused, and the honest one accepted."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common import auth
from common.auth import LEEWAY_S, TokenVerifier, read_key_set
from common.problems import Problem

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ISSUER = "https://identity.test"
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def jwk(key: Ed25519PrivateKey, kid: str) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(public_bytes(key)), "kid": kid, "use": "sig"}


def claims(**changes: Any) -> dict[str, Any]:
    values = {
        "iss": ISSUER,
        "sub": "0192-member",
        "aud": ["timebank", "access"],
        "iat": int(NOW.timestamp()),
        "exp": int((NOW + timedelta(minutes=10)).timestamp()),
        "jti": "1",
        "kind": "member",
        "city": "nantes",
        "roles": ["member", "steward"],
    }
    values.update(changes)
    return {name: value for name, value in values.items() if value is not ...}


def sign(
    body: dict[str, Any] | bytes,
    *,
    key: Ed25519PrivateKey = KEY,
    header: dict[str, Any] | None = None,
) -> str:
    head = {"alg": "EdDSA", "kid": "k1", "typ": "at+jwt"} if header is None else header
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    signed = f"{b64(orjson.dumps(head))}.{b64(raw)}"
    return f"{signed}.{b64(key.sign(signed.encode()))}"


class Issuer:
    """Serves a key set, counts how often it is asked, and can be away."""

    def __init__(self) -> None:
        self.keys = [jwk(KEY, "k1")]
        self.asked = 0
        self.away = False

    def answer(self, _request: httpx.Request) -> httpx.Response:
        self.asked += 1
        return httpx.Response(503) if self.away else httpx.Response(200, json={"keys": self.keys})


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def verifier(issuer: Issuer, clock: Clock) -> TokenVerifier:
    http = httpx.AsyncClient(transport=httpx.MockTransport(issuer.answer))
    return TokenVerifier(
        issuer=ISSUER, audience="timebank", jwks_url=ISSUER + "/jwks", http=http, clock=clock
    )


async def test_an_honest_token_names_its_bearer(verifier: TokenVerifier) -> None:
    principal = await verifier.verify(sign(claims()))
    assert principal.sub == "0192-member"
    assert principal.in_city("nantes", "steward")
    assert not principal.in_city("bourges", "steward")
    assert not principal.has("federation_admin")


def hs256(secret: bytes) -> Callable[[], str]:
    def make() -> str:
        header = b64(orjson.dumps({"alg": "HS256", "kid": "k1", "typ": "at+jwt"}))
        signed = f"{header}.{b64(orjson.dumps(claims()))}"
        return f"{signed}.{b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}"

    return make


PEM = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
HEAD = {"alg": "EdDSA", "kid": "k1", "typ": "at+jwt"}

FORGERIES: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "two parts": lambda: "a.b",
    "five parts": lambda: "a.b.c.d.e",
    "not base64": lambda: "§.§.§",
    "padding": lambda: sign(claims()) + "=",
    "trailing bits": lambda: sign(claims())[:-1] + "B",
    "white space": lambda: " " + sign(claims()),
    "too long": lambda: sign(claims(extra="x" * 9000)),
    "alg none": lambda: sign(claims(), header={**HEAD, "alg": "none"}),
    "alg nOnE without signature": lambda: (
        sign(claims(), header={**HEAD, "alg": "nOnE"}).rsplit(".", 1)[0] + "."
    ),
    "HS256 with the public key": hs256(public_bytes(KEY)),
    "HS256 with the PEM": hs256(PEM),
    "HS256 with the JWK": hs256(orjson.dumps(jwk(KEY, "k1"))),
    "another key": lambda: sign(claims(), key=OTHER_KEY),
    "ES256": lambda: jwt.encode(
        claims(), ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": "k1", "typ": "at+jwt"}
    ),
    "key id is a path": lambda: sign(claims(), header={**HEAD, "kid": "../../dev/null"}),
    "key id is SQL": lambda: sign(claims(), header={**HEAD, "kid": "' OR 1=1--"}),
    "key id is huge": lambda: sign(claims(), header={**HEAD, "kid": "k" * 2000}),
    "key id is a list": lambda: sign(claims(), header={**HEAD, "kid": ["k1"]}),
    "no key id": lambda: sign(claims(), header={"alg": "EdDSA", "typ": "at+jwt"}),
    "jku": lambda: sign(claims(), header={**HEAD, "jku": "https://evil.test/jwks"}),
    "jwk in header": lambda: sign(
        claims(), key=OTHER_KEY, header={**HEAD, "jwk": jwk(OTHER_KEY, "k1")}
    ),
    "crit": lambda: sign(claims(), header={**HEAD, "crit": ["exp"]}),
    "b64 false": lambda: sign(claims(), header={**HEAD, "b64": False}),
    "refresh token as access token": lambda: sign(claims(), header={**HEAD, "typ": "rt+jwt"}),
    "plain JWT type": lambda: sign(claims(), header={**HEAD, "typ": "JWT"}),
    "other audience": lambda: sign(claims(aud=["places"])),
    "no audience": lambda: sign(claims(aud=...)),
    "issuer contained": lambda: sign(claims(iss=ISSUER[:-1])),
    "issuer containing": lambda: sign(claims(iss="_" + ISSUER + "_")),
    "issuer a list": lambda: sign(claims(iss=[ISSUER])),
    "no issuer": lambda: sign(claims(iss=...)),
    "no subject": lambda: sign(claims(sub=...)),
    "subject a number": lambda: sign(claims(sub=7)),
    "no expiry": lambda: sign(claims(exp=...)),
    "expired": lambda: sign(claims(exp=int(NOW.timestamp()) - 31)),
    "expiry a text": lambda: sign(claims(exp="9999999999")),
    "expiry a fraction": lambda: sign(claims(exp=9999999999.5)),
    "expiry true": lambda: sign(claims(exp=True)),
    "expiry infinite": lambda: sign(
        orjson.dumps(claims()).replace(str(claims()["exp"]).encode(), b"1e400")
    ),
    "issued in the future": lambda: sign(claims(iat=int(NOW.timestamp()) + 600)),
    "not before the future": lambda: sign(claims(nbf=int(NOW.timestamp()) + 600)),
    "no issue time": lambda: sign(claims(iat=...)),
    "roles a text": lambda: sign(claims(roles="federation_admin")),
    "roles of numbers": lambda: sign(claims(roles=[1])),
    "city a list": lambda: sign(claims(city=["nantes"])),
    "kind unknown": lambda: sign(claims(kind="reader")),
    "claims no object": lambda: sign(b"[1]"),
    "claims no JSON": lambda: sign(b"\xff"),
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forged_token_is_refused(verifier: TokenVerifier, name: str) -> None:
    with pytest.raises(Problem) as refused:
        await verifier.verify(FORGERIES[name]())
    assert refused.value.status == 401
    assert "WWW-Authenticate" in refused.value.headers


async def test_a_new_key_is_fetched_and_a_withdrawn_one_forgotten(
    verifier: TokenVerifier, issuer: Issuer, clock: Clock
) -> None:
    await verifier.verify(sign(claims()))
    issuer.keys = [jwk(OTHER_KEY, "k2")]
    clock.now += timedelta(seconds=5)
    token = sign(claims(), key=OTHER_KEY, header={**HEAD, "kid": "k2"})
    assert (await verifier.verify(token)).sub == "0192-member"
    with pytest.raises(Problem):
        await verifier.verify(sign(claims()))


async def test_a_token_that_was_good_is_refused_when_it_has_expired(
    verifier: TokenVerifier, clock: Clock
) -> None:
    token = sign(claims())
    clock.now += timedelta(minutes=10, seconds=LEEWAY_S - 1)
    for _ in range(2):
        assert await verifier.verify(token)
    clock.now += timedelta(seconds=1)
    with pytest.raises(Problem):
        await verifier.verify(token)


async def test_a_token_that_was_good_is_refused_when_its_key_id_has_another_key(
    verifier: TokenVerifier, issuer: Issuer, clock: Clock
) -> None:
    token = sign(claims(exp=int((NOW + timedelta(hours=1)).timestamp())))
    assert await verifier.verify(token)
    issuer.keys = [jwk(OTHER_KEY, "k1")]
    clock.now += timedelta(minutes=6)
    with pytest.raises(Problem):
        await verifier.verify(token)


async def test_tokens_that_were_good_are_remembered_up_to_a_bound(
    verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "VERIFIED_MAX", 2)
    for number in range(5):
        assert (await verifier.verify(sign(claims(sub=f"m{number}")))).sub == f"m{number}"
    assert len(verifier._verified) == 2


async def test_nonsense_does_not_make_us_hammer_the_issuer(
    verifier: TokenVerifier, issuer: Issuer
) -> None:
    for number in range(50):
        with pytest.raises(Problem):
            await verifier.verify(sign(claims(), header={**HEAD, "kid": f"x{number}"}))
    assert issuer.asked == 1


async def test_known_keys_outlive_an_issuer_that_is_away(
    verifier: TokenVerifier, issuer: Issuer, clock: Clock
) -> None:
    await verifier.verify(sign(claims()))
    issuer.away = True
    clock.now += timedelta(minutes=6)
    assert await verifier.verify(sign(claims()))


async def test_without_any_key_the_answer_is_not_now(
    verifier: TokenVerifier, issuer: Issuer
) -> None:
    issuer.away = True
    with pytest.raises(Problem) as refused:
        await verifier.verify(sign(claims()))
    assert refused.value.status == 503


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "AAAA", "kid": "k2"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "k2"},
        {**jwk(OTHER_KEY, "k1")},
        {**jwk(OTHER_KEY, "k2"), "use": "enc"},
        {**jwk(OTHER_KEY, "k2"), "d": "AAAA"},
        {**jwk(OTHER_KEY, "k2"), "alg": "HS256"},
        {name: value for name, value in jwk(OTHER_KEY, "k2").items() if name != "kid"},
    ],
)
def test_a_key_set_with_anything_odd_in_it_is_refused_whole(key: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="key"):
        read_key_set(orjson.dumps({"keys": [jwk(KEY, "k1"), key]}))
