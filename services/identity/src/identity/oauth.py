"""The grants of the token endpoint (RFC 6749), and revocation (RFC 7009)."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import parse_qsl, unquote_plus
from uuid import UUID

from common.db import Conn
from common.ids import new_id
from common.logging import get_logger
from identity import domain, store
from identity.context import Context
from identity.domain import AUDIENCES, Malformed, Member, narrow_audience
from identity.keys import ACCESS_TOKEN_LIFETIME
from identity.tokens import hash_refresh_token, make_refresh_token, mint
from identity.vault import sha256_hex

FORM_BYTES_MAX = 16 * 1024
FORM_FIELDS_MAX = 20
MULTIPLE = frozenset({"audience"})

log = get_logger(__name__)


class OAuthError(Exception):
    """An error answer of RFC 6749, section 5.2."""

    def __init__(
        self,
        error: str,
        description: str,
        *,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Tokens:
    """`expires_in` in seconds; a service gets no refresh token, it has its secret."""

    access_token: str
    expires_in: int
    refresh_token: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """The parameters of a request: each once, `audience` as often as one likes."""

    fields: Mapping[str, str]
    audiences: tuple[str, ...]

    def require(self, name: str) -> str:
        value = self.fields.get(name)
        if value is None:
            raise OAuthError("invalid_request", f"{name} is missing")
        return value


def parse_form(body: bytes, content_type: str) -> Form:
    """Raises OAuthError invalid_request for anything but one well-formed form.

    An empty value counts as left out, a repeated name is an error (RFC 6749, section 3.2).
    """
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "send application/x-www-form-urlencoded")
    if len(body) > FORM_BYTES_MAX:
        raise OAuthError("invalid_request", "the form is too large")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=FORM_FIELDS_MAX,
        )
    except ValueError as error:
        raise OAuthError("invalid_request", "the form is malformed") from error
    fields: dict[str, str] = {}
    audiences: list[str] = []
    for name, value in pairs:
        if "\x00" in value:
            raise OAuthError("invalid_request", f"{printable_name(name)} contains NUL")
        if name in MULTIPLE:
            audiences.extend(value.split())
        elif name in fields:
            raise OAuthError("invalid_request", f"{printable_name(name)} is there twice")
        elif value:
            fields[name] = value
    return Form(fields, tuple(audiences))


def printable_name(name: str) -> str:
    """RFC 6749 allows error_description only printable ASCII without quote and backslash."""
    kept = "".join(c for c in name[:40] if " " <= c <= "~" and c not in '"\\')
    return kept or "a parameter"


async def grant(context: Context, form: Form, *, authorization: str | None, address: str) -> Tokens:
    """Answer the token endpoint. `address` is the caller's, for the limit of failures.

    Raises OAuthError, and Problem 503 when too many logins wait.
    """
    match form.require("grant_type"):
        case "password":
            return await grant_password(context, form, address)
        case "refresh_token":
            return await grant_refresh(context, form)
        case "client_credentials":
            return await grant_client(context, form, authorization, address)
        case _:
            raise OAuthError("unsupported_grant_type", "this grant type is not offered")


def audience_of(form: Form, allowed: tuple[str, ...]) -> tuple[str, ...]:
    audiences = narrow_audience(form.audiences, allowed)
    if audiences is None:
        # The name is RFC 8707's, for a target that the token cannot be made for.
        raise OAuthError("invalid_target", "an audience is unknown or not allowed here")
    return audiences


async def count_attempt(context: Context, login: str, address: str) -> None:
    wait_seconds = await context.throttle.admit(login, address)
    if wait_seconds is not None:
        raise OAuthError(
            "too_many_attempts",
            f"too many failed attempts, try again in {wait_seconds} seconds",
            status=429,
            headers={"Retry-After": str(wait_seconds)},
        )


async def grant_password(context: Context, form: Form, address: str) -> Tokens:
    """A login. An unknown login, a wrong password and a suspended member sound alike."""
    audiences = audience_of(form, AUDIENCES)
    username = form.require("username")
    password = form.require("password")
    try:
        login: str | None = domain.normalise_email(username)
    except Malformed:
        # Goes the whole way all the same: it must not be faster than a wrong password.
        login = None
    counted_as = login or username[: domain.EMAIL_LENGTH_MAX]
    await count_attempt(context, counted_as, address)
    async with context.pool.acquire() as conn:
        known = await store.find_login(conn, login) if login else None
    member, stored = known or (None, None)
    matches = await context.passwords.verify(stored, domain.fold_password(password))
    if member is None or stored is None or not matches or member.status != "active":
        await context.throttle.failed(counted_as, address)
        log.info("login_refused")
        raise OAuthError("invalid_grant", "the login or the password is wrong")
    await context.throttle.succeeded(counted_as, address)
    if context.passwords.needs_rehash(stored):
        new_hash = await context.passwords.hash(domain.fold_password(password))
        async with context.pool.acquire() as conn:
            await store.set_password_hash(conn, member.member_id, old=stored, new=new_hash)
    return await start_family(context, member, audiences)


async def start_family(context: Context, member: Member, audiences: tuple[str, ...]) -> Tokens:
    """A login begins: its first refresh token, and an access token."""
    now = context.clock()
    refresh_token = make_refresh_token()
    family_id = new_id()
    expires_at = now + timedelta(days=context.settings.refresh_days_max)
    async with context.pool.acquire() as conn, conn.transaction():
        # Shared with the suspension, which ends all families: none slips in behind it.
        current = await store.share_member(conn, member.member_id)
        if current is None or current.status != "active":
            raise OAuthError("invalid_grant", "the login or the password is wrong")
        await store.insert_family(
            conn,
            family_id=family_id,
            member_id=current.member_id,
            audiences=audiences,
            now=now,
            expires_at=expires_at,
        )
        await store.insert_refresh_token(
            conn,
            token_sha256=hash_refresh_token(refresh_token),
            family_id=family_id,
            expires_at=min(expires_at, now + timedelta(days=context.settings.refresh_idle_days)),
        )
    log.info("login_accepted", member_id=str(current.member_id))
    return await member_tokens(context, current, audiences, refresh_token)


async def member_tokens(
    context: Context, member: Member, audiences: tuple[str, ...], refresh_token: str
) -> Tokens:
    access_token = await mint(
        context.ring,
        issuer=context.settings.token_issuer,
        sub=member.member_id,
        kind="member",
        city_id=member.city_id,
        roles=member.all_roles,
        audiences=audiences,
        jti=new_id(),
        now=context.clock(),
    )
    return Tokens(access_token, int(ACCESS_TOKEN_LIFETIME.total_seconds()), refresh_token)


async def grant_refresh(context: Context, form: Form) -> Tokens:
    """Exchange a refresh token for the next one. Used twice, it was stolen: the family ends.

    The new access token has the member's roles of now, and never more audiences than the login.
    """
    used_sha256 = hash_refresh_token(form.require("refresh_token"))
    next_token = make_refresh_token()
    async with context.pool.acquire() as conn, conn.transaction():
        # Raised only after the transaction: a revocation must stay when the answer is no.
        outcome = await rotate_refresh_token(conn, context, form, used_sha256, next_token)
    if isinstance(outcome, OAuthError):
        raise outcome
    member, audiences = outcome
    return await member_tokens(context, member, audiences, next_token)


async def rotate_refresh_token(
    conn: Conn, context: Context, form: Form, used_sha256: bytes, next_token: str
) -> tuple[Member, tuple[str, ...]] | OAuthError:
    """Mark one refresh token used and store the next. Returns whom the tokens are for."""
    now = context.clock()
    refused = OAuthError("invalid_grant", "the refresh token is not valid")
    row = await store.lock_refresh_token(conn, used_sha256)
    if row is None or row["revoked_at"] is not None or row["family_expires_at"] <= now:
        return refused
    if row["used_at"] is not None:
        await store.revoke_family(conn, row["family_id"], "reused", now)
        log.warning("refresh_token_reused", family_id=str(row["family_id"]))
        return refused
    if row["expires_at"] <= now:
        return refused
    audiences = narrow_audience(form.audiences, tuple(row["audiences"]))
    if audiences is None:
        return OAuthError("invalid_target", "an audience is unknown or not allowed here")
    member = await store.get_member(conn, row["member_id"])
    if member is None or member.status != "active":
        return refused
    await store.use_refresh_token(conn, used_sha256, now)
    idle_until = now + timedelta(days=context.settings.refresh_idle_days)
    await store.insert_refresh_token(
        conn,
        token_sha256=hash_refresh_token(next_token),
        family_id=row["family_id"],
        expires_at=min(row["family_expires_at"], idle_until),
    )
    return member, audiences


async def grant_client(
    context: Context, form: Form, authorization: str | None, address: str
) -> Tokens:
    """A service in its own name, by HTTP Basic or in the form, not both."""
    basic = authorization is not None
    client_text, secret = (
        read_basic(authorization)
        if authorization is not None
        else (form.require("client_id"), form.require("client_secret"))
    )
    if basic and ("client_id" in form.fields or "client_secret" in form.fields):
        raise OAuthError("invalid_request", "authenticate the client once, not twice")
    refused = OAuthError(
        "invalid_client",
        "the client or its secret is wrong",
        status=401,
        headers={"WWW-Authenticate": 'Basic realm="identity"'},
    )
    await count_attempt(context, f"client {client_text[:100]}", address)
    try:
        client_id: UUID | None = UUID(client_text)
    except ValueError:
        client_id = None
    async with context.pool.acquire() as conn:
        client = await store.get_client(conn, client_id) if client_id else None
    known_sha256 = client.secret_sha256 if client else sha256_hex("")
    matches = hmac.compare_digest(sha256_hex(secret), known_sha256)
    if client is None or not matches or client.status != "active":
        await context.throttle.failed(f"client {client_text[:100]}", address)
        log.info("client_refused")
        raise refused
    await context.throttle.succeeded(f"client {client_text[:100]}", address)
    audiences = audience_of(form, client.audiences)
    access_token = await mint(
        context.ring,
        issuer=context.settings.token_issuer,
        sub=client.client_id,
        kind="service",
        city_id=client.city_id,
        roles=client.roles,
        audiences=audiences,
        jti=new_id(),
        now=context.clock(),
    )
    return Tokens(access_token, int(ACCESS_TOKEN_LIFETIME.total_seconds()))


def read_basic(authorization: str) -> tuple[str, str]:
    """Client id and secret, form-encoded inside Basic (RFC 6749, section 2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError("not Basic")
        text = base64.b64decode(encoded.strip(), validate=True).decode()
        client_id, colon, secret = text.partition(":")
        if not colon:
            raise ValueError("no colon")
    except (ValueError, binascii.Error) as error:
        raise OAuthError(
            "invalid_client",
            "the Authorization header is malformed",
            status=401,
            headers={"WWW-Authenticate": 'Basic realm="identity"'},
        ) from error
    return unquote_plus(client_id), unquote_plus(secret)


async def revoke(context: Context, form: Form) -> None:
    """Log out: end the family of a refresh token. A token that is not known is no error.

    Raises OAuthError unsupported_token_type for an access token, which only time ends: a caller
    must not believe that it is gone.
    """
    token = form.require("token")
    if token.count(".") == 2:
        raise OAuthError("unsupported_token_type", "access tokens end by themselves, in minutes")
    async with context.pool.acquire() as conn, conn.transaction():
        row = await store.lock_refresh_token(conn, hash_refresh_token(token))
        if row is not None:
            await store.revoke_family(conn, row["family_id"], "logout", context.clock())
