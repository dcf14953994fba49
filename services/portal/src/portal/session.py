"""Who is signed in: tokens in an encrypted cookie that the browser can neither read nor change.

Nothing is kept on the server, so any portal process can answer any request.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass

import orjson
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SESSION_SECONDS_MAX = 14 * 24 * 3600
# Browsers keep no cookie over 4,096 bytes with its name and attributes.
COOKIE_BYTES_MAX = 3900


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in member. `expires_at` is that of the access token, in epoch seconds."""

    access_token: str
    refresh_token: str
    expires_at: int
    member_id: str
    city_id: str | None
    name: str
    roles: tuple[str, ...]

    def has(self, *roles: str) -> bool:
        """Whether the member holds one of these roles, as of signing in."""
        return bool(set(roles) & set(self.roles))

    def may_see_presence(self) -> bool:
        return self.has("operator", "steward", "federation_admin")


def derived(secret: str, purpose: str) -> bytes:
    """32 bytes for one purpose, so that no two uses of the secret share a key."""
    return HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(secret.encode())


class Seal:
    """Turns a session into a cookie's value and back."""

    def __init__(self, secret: str) -> None:
        self._fernet = Fernet(base64.urlsafe_b64encode(derived(secret, "portal session v1")))

    def close(self, session: Session, now: int) -> str:
        """The cookie's value. Raises ValueError when it would not fit into a cookie."""
        sealed = self._fernet.encrypt_at_time(orjson.dumps(session), now).decode("ascii")
        if len(sealed) > COOKIE_BYTES_MAX:
            raise ValueError("the session does not fit into a cookie")
        return sealed

    def open(self, value: str, now: int) -> Session | None:
        """The session, or None for anything that we did not seal, or did too long ago."""
        try:
            sealed = value.encode("ascii")
            fields = orjson.loads(self._fernet.decrypt_at_time(sealed, SESSION_SECONDS_MAX, now))
            return Session(**{**fields, "roles": tuple(fields["roles"])})
        except (InvalidToken, UnicodeError, ValueError, TypeError, KeyError):
            return None


class FormTokens:
    """A form carries the HMAC of a random cookie: another site can forge neither."""

    def __init__(self, secret: str) -> None:
        self._key = derived(secret, "portal forms v1")

    def new_cookie(self) -> str:
        return secrets.token_urlsafe(24)

    def token(self, cookie: str) -> str:
        return hmac.new(self._key, cookie.encode(), hashlib.sha256).hexdigest()

    def holds(self, cookie: str | None, token: str) -> bool:
        return cookie is not None and hmac.compare_digest(
            self.token(cookie).encode(), token.encode()
        )
