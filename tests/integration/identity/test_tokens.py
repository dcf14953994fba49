"""Logins, refresh tokens, service clients, the key set, and tokens that somebody made up."""

import asyncio
import base64
import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from identity_network import ADMIN_LOGIN, ISSUER, PASSWORD, Caller, Network, TestClock, running
from pydantic import SecretStr

from common.auth import read_key_set
from identity import keys
from identity.app import create_app
from identity.keys import SigningKey
from identity.settings import IdentitySettings


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


# The token endpoint


async def test_a_login_gives_the_token_of_the_contract(network: Network) -> None:
    await network.city("nantes")
    made = await network.member("nantes", "steward")
    answer = await network.token_request(
        grant_type="password", username=made["email"].upper(), password=PASSWORD
    )
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json()
    assert set(tokens) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 600)
    header = jwt.get_unverified_header(tokens["access_token"])
    assert set(header) == {"alg", "kid", "typ"}
    assert (header["alg"], header["typ"]) == ("EdDSA", "at+jwt")
    claims = claims_of(tokens["access_token"])
    assert set(claims) == {"iss", "sub", "aud", "iat", "exp", "jti", "kind", "city", "roles"}
    assert claims["aud"] == ["identity", "timebank", "access", "places"]
    assert claims["sub"] == made["member_id"]
    assert (claims["iss"], claims["kind"], claims["city"]) == (ISSUER, "member", "nantes")
    assert claims["roles"] == ["member", "steward"]
    assert claims["exp"] - claims["iat"] == 600


async def test_a_token_can_be_for_fewer_services_and_never_for_more(network: Network) -> None:
    tokens = await network.login(ADMIN_LOGIN, audience="access timebank")
    assert claims_of(tokens["access_token"])["aud"] == ["timebank", "access"]
    assert (await Caller(network.http, tokens["access_token"]).get("/v1/me")).status_code == 401
    wider = await network.token_request(
        grant_type="refresh_token", refresh_token=tokens["refresh_token"], audience="identity"
    )
    assert (wider.status_code, wider.json()["error"]) == (400, "invalid_target")
    unknown = await network.token_request(
        grant_type="password", username=ADMIN_LOGIN, password=PASSWORD, audience="bank"
    )
    assert (unknown.status_code, unknown.json()["error"]) == (400, "invalid_target")


REFUSED = [
    ({}, 400, "invalid_request"),
    ({"grant_type": "password"}, 400, "invalid_request"),
    ({"grant_type": "password", "username": ADMIN_LOGIN}, 400, "invalid_request"),
    ({"grant_type": "implicit"}, 400, "unsupported_grant_type"),
    ({"grant_type": "refresh_token", "refresh_token": "x"}, 400, "invalid_grant"),
    (
        {"grant_type": "password", "username": ADMIN_LOGIN, "password": "wrong"},
        400,
        "invalid_grant",
    ),
    (
        {"grant_type": "password", "username": "nobody@a.invalid", "password": PASSWORD},
        400,
        "invalid_grant",
    ),
    (
        {"grant_type": "password", "username": "' OR 1=1 --", "password": PASSWORD},
        400,
        "invalid_grant",
    ),
    (
        {"grant_type": "password", "username": "аdmin@federation.invalid", "password": "wrong"},
        400,
        "invalid_grant",
    ),
    (
        {"grant_type": "client_credentials", "client_id": "x", "client_secret": "y"},
        401,
        "invalid_client",
    ),
]


async def test_the_token_endpoint_refuses_as_rfc_6749_says(
    network: Network, subtests: pytest.Subtests
) -> None:
    for form, status, error in REFUSED:
        with subtests.test(str(form)):
            answer = await network.token_request(**form)
            assert (answer.status_code, answer.json()["error"]) == (status, error)
            assert set(answer.json()) == {"error", "error_description"}
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == "no-store"


async def test_the_token_endpoint_takes_forms_only(network: Network) -> None:
    answer = await network.http.post("/v1/oauth/token", json={"grant_type": "password"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_an_unknown_login_sounds_like_a_wrong_password(network: Network) -> None:
    unknown = await network.token_request(
        grant_type="password", username="nobody@a.invalid", password=PASSWORD
    )
    wrong = await network.token_request(
        grant_type="password", username=ADMIN_LOGIN, password="not the passphrase"
    )
    assert unknown.status_code == wrong.status_code
    assert unknown.json() == wrong.json()


async def test_an_unknown_login_costs_a_password_check_too(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str | None] = []
    passwords = network.context.passwords
    verify = passwords.verify

    async def watched(stored: str | None, password: str) -> bool:
        checked.append(stored)
        return await verify(stored, password)

    monkeypatch.setattr(passwords, "verify", watched)
    for name in ("nobody@a.invalid", "not an address"):
        await network.token_request(grant_type="password", username=name, password=PASSWORD)
    assert checked == [None, None]
    assert not await verify(None, "nobody's password")


async def test_failures_of_a_login_from_an_address_are_limited(network: Network) -> None:
    await network.city("nantes")
    email = (await network.member("nantes"))["email"]
    form = {"grant_type": "password", "username": email}
    answers = await asyncio.gather(
        *(network.token_request(**form, password=f"wrong {n}") for n in range(14))
    )
    assert sorted(answer.status_code for answer in answers) == [400] * 10 + [429] * 4
    shut = await network.token_request(**form, password=PASSWORD)
    assert shut.status_code == 429
    assert 0 < int(shut.headers["retry-after"]) <= 900
    assert shut.json()["error"] == "too_many_attempts"
    # Nobody else is shut out with them.
    await network.login(ADMIN_LOGIN)
    network.clock.advance(minutes=15, seconds=1)
    await network.login(email)


async def test_an_unknown_login_is_limited_just_the_same(network: Network) -> None:
    form = {"grant_type": "password", "username": "nobody@a.invalid", "password": "wrong wrong"}
    answers = [await network.token_request(**form) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [400] * 10 + [429]


async def test_a_success_forgets_the_failures_before_it(network: Network) -> None:
    form = {"grant_type": "password", "username": ADMIN_LOGIN, "password": "wrong wrong"}
    for _ in range(2):
        for _ in range(9):
            assert (await network.token_request(**form)).status_code == 400
        await network.login(ADMIN_LOGIN)


async def test_the_limit_outlives_a_restart_and_stores_no_login(network: Network) -> None:
    form = {"grant_type": "password", "username": ADMIN_LOGIN, "password": "wrong wrong"}
    for _ in range(11):
        answer = await network.token_request(**form)
    assert answer.status_code == 429
    rows = await network.conn.fetch("SELECT key FROM login_failures")
    assert rows
    assert not any("admin" in row["key"] or "federation" in row["key"] for row in rows)
    with pytest.raises(AssertionError, match="too_many_attempts"):
        async with running(network.settings, network.clock):
            pass


async def test_failures_from_an_address_are_limited_whatever_the_login(
    settings: IdentitySettings, clock: TestClock
) -> None:
    few = settings.model_copy(update={"login_failures_address_max": 3})
    async with running(few, clock) as network:
        statuses = []
        for n in range(5):
            form = {"grant_type": "password", "username": f"n{n}@a.invalid", "password": "guess"}
            statuses.append((await network.token_request(**form)).status_code)
        assert statuses == [400, 400, 400, 429, 429]


async def test_a_login_is_limited_from_anywhere(
    settings: IdentitySettings, clock: TestClock
) -> None:
    few = settings.model_copy(update={"login_failures_login_max": 3})
    async with running(few, clock) as network:
        throttle = network.context.throttle
        for n in range(3):
            assert await throttle.admit("claire@a.invalid", f"192.0.2.{n}") is None
            await throttle.failed("claire@a.invalid", f"192.0.2.{n}")
        wait_seconds = await throttle.admit("claire@a.invalid", "192.0.2.9")
        assert wait_seconds == 3600
        assert await throttle.admit("other@a.invalid", "192.0.2.9") is None
        clock.advance(hours=1)
        assert await throttle.admit("claire@a.invalid", "192.0.2.9") is None


# Refresh tokens


async def refresh(network: Network, token: str) -> Any:
    return await network.token_request(grant_type="refresh_token", refresh_token=token)


async def test_a_refresh_token_is_exchanged_for_the_next(network: Network) -> None:
    token = (await network.login(ADMIN_LOGIN))["refresh_token"]
    seen = {token}
    for _ in range(3):
        answer = await refresh(network, token)
        assert answer.status_code == 200
        token = answer.json()["refresh_token"]
        assert token not in seen
        seen.add(token)
        me = await Caller(network.http, answer.json()["access_token"]).get("/v1/me")
        assert me.json()["email"] == ADMIN_LOGIN


async def test_a_refresh_token_used_twice_ends_the_whole_family(network: Network) -> None:
    stolen = (await network.login(ADMIN_LOGIN))["refresh_token"]
    other_login = (await network.login(ADMIN_LOGIN))["refresh_token"]
    current = (await refresh(network, stolen)).json()["refresh_token"]
    assert (await refresh(network, stolen)).json()["error"] == "invalid_grant"
    assert (await refresh(network, current)).json()["error"] == "invalid_grant"
    assert (await refresh(network, other_login)).status_code == 200
    reason = await network.conn.fetchval(
        "SELECT revoked_reason FROM refresh_family WHERE revoked_at IS NOT NULL"
    )
    assert reason == "reused"


async def test_of_two_uses_at_once_one_wins_and_the_family_ends(network: Network) -> None:
    token = (await network.login(ADMIN_LOGIN))["refresh_token"]
    answers = await asyncio.gather(*(refresh(network, token) for _ in range(5)))
    won = [answer for answer in answers if answer.status_code == 200]
    assert len(won) == 1
    assert (await refresh(network, won[0].json()["refresh_token"])).status_code == 400


async def test_a_refresh_token_ends_by_idling_and_the_family_by_age(network: Network) -> None:
    token = (await network.login(ADMIN_LOGIN))["refresh_token"]
    idle = (await network.login(ADMIN_LOGIN))["refresh_token"]
    for _ in range(3):
        network.clock.advance(days=29)
        answer = await refresh(network, token)
        assert answer.status_code == 200
        token = answer.json()["refresh_token"]
    assert (await refresh(network, idle)).status_code == 400
    network.clock.advance(days=4)
    assert (await refresh(network, token)).status_code == 400


async def test_logging_out_ends_the_family_and_says_nothing_of_unknown_tokens(
    network: Network,
) -> None:
    tokens = await network.login(ADMIN_LOGIN)
    for token in (tokens["refresh_token"], tokens["refresh_token"], "unknown"):
        answer = await network.http.post("/v1/oauth/revoke", data={"token": token})
        assert answer.status_code == 200
    assert (await refresh(network, tokens["refresh_token"])).status_code == 400
    answer = await network.http.post("/v1/oauth/revoke", data={"token": tokens["access_token"]})
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_token_type")
    answer = await network.http.post("/v1/oauth/revoke", data={})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_a_refreshed_token_has_the_roles_of_now(network: Network) -> None:
    await network.city("nantes")
    made = await network.member("nantes", "steward")
    token = (await network.login(made["email"]))["refresh_token"]
    await network.admin.put(
        f"/v1/members/{made['member_id']}/roles", {"roles": ["mediator"], "places": {}}
    )
    answer = await refresh(network, token)
    assert claims_of(answer.json()["access_token"])["roles"] == ["mediator", "member"]


async def test_no_refresh_token_is_stored_in_clear(network: Network) -> None:
    token = (await network.login(ADMIN_LOGIN))["refresh_token"]
    rows = await network.conn.fetch("SELECT to_jsonb(t)::text AS row FROM refresh_token t")
    assert rows
    assert not any(token in str(row["row"]) for row in rows)


async def test_a_suspension_ends_every_login_at_once(network: Network) -> None:
    await network.city("nantes")
    made = await network.member("nantes")
    tokens = await network.login(made["email"])
    await network.admin.post(f"/v1/members/{made['member_id']}/suspend")
    assert (await refresh(network, tokens["refresh_token"])).status_code == 400
    assert (await Caller(network.http, tokens["access_token"]).get("/v1/me")).status_code == 401
    again = await network.token_request(
        grant_type="password", username=made["email"], password=PASSWORD
    )
    assert again.json()["error"] == "invalid_grant"
    await network.admin.post(f"/v1/members/{made['member_id']}/reinstate")
    assert (await refresh(network, tokens["refresh_token"])).status_code == 400
    await network.login(made["email"])


async def test_a_changed_password_ends_every_login(network: Network) -> None:
    await network.city("nantes")
    caller, made = await network.somebody("nantes")
    token = (await network.login(made["email"]))["refresh_token"]
    body = {"current_password": PASSWORD, "new_password": "another passphrase"}
    wrong = await caller.put("/v1/me/password", {**body, "current_password": "not this one"})
    assert (wrong.status_code, wrong.json()["code"]) == (403, "wrong_password")
    first = await caller.put("/v1/me/password", body, key="change")
    assert first.status_code == 200
    again = await caller.put("/v1/me/password", body, key="change")
    assert (again.status_code, again.json()) == (200, first.json())
    assert (await refresh(network, token)).status_code == 400
    await network.login(made["email"], "another passphrase")


# Service clients


async def test_a_service_gets_tokens_in_its_own_name(network: Network) -> None:
    client = await network.admin.made(
        "/v1/clients", {"name": "observatory", "roles": ["auditor"], "audiences": ["timebank"]}
    )
    form = {
        "grant_type": "client_credentials",
        "client_id": client["client_id"],
        "client_secret": client["client_secret"],
    }
    tokens = (await network.token_request(**form)).json()
    assert "refresh_token" not in tokens
    claims = claims_of(tokens["access_token"])
    assert (claims["kind"], claims["city"], claims["roles"]) == ("service", None, ["auditor"])
    assert claims["aud"] == ["timebank"]
    more = await network.token_request(**form, audience="identity")
    assert more.json()["error"] == "invalid_target"
    basic = await network.http.post(
        "/v1/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(client["client_id"], client["client_secret"]),
    )
    assert basic.status_code == 200
    both = await network.http.post(
        "/v1/oauth/token", data=form, auth=(client["client_id"], client["client_secret"])
    )
    assert both.json()["error"] == "invalid_request"


async def test_a_client_secret_is_rotated_and_revoked(network: Network) -> None:
    client = await network.admin.made("/v1/clients", {"name": "simulator"})
    path = f"/v1/clients/{client['client_id']}"

    async def status(secret: str) -> int:
        answer = await network.token_request(
            grant_type="client_credentials",
            client_id=client["client_id"],
            client_secret=secret,
        )
        return answer.status_code

    assert await status(client["client_secret"]) == 200
    rotated = (await network.admin.post(f"{path}/rotate")).json()
    assert await status(client["client_secret"]) == 401
    assert await status(rotated["client_secret"]) == 200
    token = (
        await network.token_request(
            grant_type="client_credentials",
            client_id=client["client_id"],
            client_secret=rotated["client_secret"],
        )
    ).json()["access_token"]
    assert (await Caller(network.http, token).get("/v1/cities")).status_code == 200
    assert (await Caller(network.http, token).get("/v1/me")).status_code == 403
    assert (await network.admin.post(f"{path}/revoke")).json()["status"] == "revoked"
    assert await status(rotated["client_secret"]) == 401
    assert (await Caller(network.http, token).get("/v1/cities")).status_code == 401
    assert (await network.admin.post(f"{path}/rotate")).json()["code"] == "client_revoked"
    stored = await network.conn.fetch(
        "SELECT to_jsonb(c)::text AS row FROM client c"
        " UNION ALL SELECT to_jsonb(i)::text FROM idempotency i"
    )
    text = "".join(row["row"] for row in stored)
    assert client["client_secret"] not in text
    assert rotated["client_secret"] not in text


# Signing keys


async def published(network: Network) -> list[str]:
    answer = await network.http.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    return list(read_key_set(answer.content))


async def signing_kid(network: Network) -> str:
    tokens = await network.login(ADMIN_LOGIN)
    kid: str = jwt.get_unverified_header(tokens["access_token"])["kid"]
    return kid


async def rotate(network: Network) -> SigningKey:
    return await keys.rotate(
        network.context.pool,
        network.context.vault,
        publish_ahead=network.settings.key_publish_ahead,
        now=network.clock(),
    )


async def test_a_key_is_published_before_it_signs_and_until_its_tokens_have_ended(
    network: Network,
) -> None:
    old = await signing_kid(network)
    assert await published(network) == [old]
    new = (await rotate(network)).kid
    assert new != old
    network.clock.advance(seconds=20)
    assert set(await published(network)) == {old, new}
    assert await signing_kid(network) == old
    network.clock.advance(minutes=59, seconds=35)
    last_of_old = (await network.login(ADMIN_LOGIN))["access_token"]
    assert jwt.get_unverified_header(last_of_old)["kid"] == old
    network.clock.advance(seconds=10)
    assert await signing_kid(network) == new
    network.clock.advance(minutes=9, seconds=50)
    assert set(await published(network)) == {old, new}
    assert (await Caller(network.http, last_of_old).get("/v1/me")).status_code == 200
    network.clock.advance(minutes=3)
    assert await published(network) == [new]
    await keys.delete_retired(network.conn, network.clock())
    assert await network.conn.fetchval("SELECT count(*) FROM signing_key") == 1


async def test_processes_that_rotate_at_once_agree(network: Network) -> None:
    network.clock.advance(days=31)
    routine = [
        keys.rotate_if_old(
            network.context.pool,
            network.context.vault,
            rotate_after=timedelta(days=30),
            publish_ahead=network.settings.key_publish_ahead,
            now=network.clock(),
        )
        for _ in range(5)
    ]
    await asyncio.gather(*routine)
    assert await network.conn.fetchval("SELECT count(*) FROM signing_key") == 2
    waiting = {(await rotate(network)).kid for _ in range(2)}
    assert len(waiting) == 1


async def test_processes_that_start_at_once_make_one_first_key(network: Network) -> None:
    await network.conn.execute("DELETE FROM signing_key")
    pool, vault = network.context.pool, network.context.vault
    await asyncio.gather(*(keys.ensure_key(pool, vault, network.clock()) for _ in range(5)))
    assert await network.conn.fetchval("SELECT count(*) FROM signing_key") == 1


async def test_compromised_keys_are_withdrawn_at_once(network: Network) -> None:
    old = await signing_kid(network)
    new = await keys.replace_compromised(
        network.context.pool, network.context.vault, network.clock()
    )
    network.clock.advance(seconds=20)
    assert await published(network) == [new.kid] != [old]
    assert await signing_kid(network) == new.kid


async def test_the_private_key_is_sealed_in_the_database(network: Network) -> None:
    kid, private = await network.context.ring.signer()
    row = await network.conn.fetchrow("SELECT * FROM signing_key WHERE kid = $1", kid)
    assert row is not None
    assert private.private_bytes_raw() not in row["private_key_sealed"]
    assert row["public_key"] == private.public_key().public_bytes_raw()


async def test_a_wrong_key_secret_is_not_ready(
    network: Network, settings: IdentitySettings, clock: TestClock
) -> None:
    """Better no answer than tokens that nobody can verify."""
    assert (await network.http.get("/readyz")).status_code == 200
    wrong = settings.model_copy(update={"key_secret": SecretStr("another secret " * 4)})
    app = create_app(wrong, clock)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ISSUER) as http,
    ):
        answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["missing"]) == (503, ["WrongSecret"])


# Tokens that somebody made up


def encode(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Forger:
    """Makes tokens that differ from a good one in one thing."""

    def __init__(self, good: str, private: Ed25519PrivateKey) -> None:
        self.header = jwt.get_unverified_header(good)
        self.claims = claims_of(good)
        self.private = private

    def signed(
        self,
        header: dict[str, Any] | None = None,
        claims: dict[str, Any] | None = None,
        without: tuple[str, ...] = (),
        private: Ed25519PrivateKey | None = None,
    ) -> str:
        merged = {**self.claims, **(claims or {})}
        for name in without:
            del merged[name]
        text = f"{encode({**self.header, **(header or {})})}.{encode(merged)}"
        return f"{text}.{encode((private or self.private).sign(text.encode()))}"


async def test_forged_tokens_are_refused(network: Network) -> None:
    good = (await network.login(ADMIN_LOGIN))["access_token"]
    kid, private = await network.context.ring.signer()
    forger = Forger(good, private)
    public = private.public_key()
    public_pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    now = int(network.clock().timestamp())
    header, body, signature = good.split(".")
    flipped = encode(bytes([jwt.utils.base64url_decode(signature)[0] ^ 1]) + b"\0" * 63)

    def hs256(secret: bytes) -> str:
        import hashlib
        import hmac

        text = f"{encode({**forger.header, 'alg': 'HS256'})}.{encode(forger.claims)}"
        return f"{text}.{encode(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"

    forged = {
        "alg none": f"{encode({**forger.header, 'alg': 'none'})}.{body}.",
        "alg none with signature": forger.signed({"alg": "none"}),
        "alg nOnE": f"{encode({**forger.header, 'alg': 'nOnE'})}.{body}.{signature}",
        "hs256 with the public key's PEM": hs256(public_pem),
        "hs256 with the raw public key": hs256(public.public_bytes_raw()),
        "another key": forger.signed(private=Ed25519PrivateKey.generate()),
        "flipped signature": f"{header}.{body}.{flipped}",
        "no signature": f"{header}.{body}.",
        "claims changed": f"{header}.{encode({**forger.claims, 'roles': []})}.{signature}",
        "typ JWT": forger.signed({"typ": "JWT"}),
        "kid of a path": forger.signed({"kid": "../../dev/null"}),
        "kid of sql": forger.signed({"kid": "' OR 1=1 --"}),
        "kid of a url": forger.signed({"kid": "http://evil.invalid/keys"}),
        "kid empty": forger.signed({"kid": ""}),
        "kid a list": forger.signed({"kid": [kid]}),
        "kid long": forger.signed({"kid": "k" * 10_000}),
        "jwk in the header": forger.signed({"jwk": {"kty": "OKP"}}),
        "jku": forger.signed({"jku": "http://evil.invalid/keys"}),
        "crit": forger.signed({"crit": ["b64"], "b64": False}),
        "aud of another service": forger.signed(claims={"aud": ["timebank"]}),
        "aud empty": forger.signed(claims={"aud": []}),
        "aud missing": forger.signed(without=("aud",)),
        "iss of another": forger.signed(claims={"iss": "https://evil.invalid"}),
        "iss a part": forger.signed(claims={"iss": ISSUER[:-1]}),
        "iss a list": forger.signed(claims={"iss": [ISSUER]}),
        "expired": forger.signed(claims={"iat": now - 700, "exp": now - 100}),
        "exp missing": forger.signed(without=("exp",)),
        "exp text": forger.signed(claims={"exp": str(now + 600)}),
        "exp float": forger.signed(claims={"exp": now + 600.5}),
        "iat in the future": forger.signed(claims={"iat": now + 600, "exp": now + 1200}),
        "nbf in the future": forger.signed(claims={"nbf": now + 600}),
        "sub missing": forger.signed(without=("sub",)),
        "sub nobody": forger.signed(claims={"sub": str(uuid4())}),
        "sub no id": forger.signed(claims={"sub": "admin"}),
        "kind of another": forger.signed(claims={"kind": "service"}),
        "kind unknown": forger.signed(claims={"kind": "root"}),
        "four parts": f"{good}.x",
        "nothing": "x",
    }
    assert (await Caller(network.http, forger.signed()).get("/v1/me")).status_code == 200
    for name, token in forged.items():
        answer = await Caller(network.http, token).get("/v1/me")
        assert answer.status_code == 401, name
        assert answer.headers["content-type"] == "application/problem+json", name
        assert answer.headers["www-authenticate"] == "Bearer", name


async def test_a_refresh_token_is_no_access_token(network: Network) -> None:
    tokens = await network.login(ADMIN_LOGIN)
    answer = await Caller(network.http, tokens["refresh_token"]).get("/v1/me")
    assert answer.status_code == 401


async def test_a_token_ends_after_ten_minutes(network: Network) -> None:
    caller = await network.caller(ADMIN_LOGIN)
    network.clock.advance(minutes=9, seconds=59)
    assert (await caller.get("/v1/me")).status_code == 200
    network.clock.advance(seconds=32)
    assert (await caller.get("/v1/me")).status_code == 401


async def test_roles_in_a_token_of_yesterday_do_not_count_here(network: Network) -> None:
    await network.city("nantes")
    caller, made = await network.somebody("nantes", "steward")
    assert (await caller.get("/v1/members?city_id=nantes")).status_code == 200
    await network.admin.put(f"/v1/members/{made['member_id']}/roles", {"roles": [], "places": {}})
    assert (await caller.get("/v1/members?city_id=nantes")).status_code == 403
