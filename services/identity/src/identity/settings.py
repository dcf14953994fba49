"""The settings of identity, from variables that begin with `IDENTITY_`."""

from datetime import timedelta
from typing import ClassVar

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from common.settings import ServiceSettings


class IdentitySettings(ServiceSettings):
    """`card_pepper` is shared with access; `key_secret` is known to identity alone."""

    model_config = SettingsConfigDict(env_prefix="IDENTITY_", frozen=True, extra="ignore")
    service: ClassVar[str] = "identity"

    port: int = Field(default=8001, ge=1, le=65535)
    worker_port: int = Field(default=8021, ge=1, le=65535)

    card_pepper: SecretStr = Field(min_length=32)
    key_secret: SecretStr = Field(min_length=32)

    refresh_idle_days: int = Field(default=30, ge=1, le=365)
    refresh_days_max: int = Field(default=90, ge=1, le=365)

    key_rotation_days: int = Field(default=30, ge=1, le=365)
    # Longer than any verifier keeps the JWKS, so that no token is signed with a key unheard of.
    key_publish_ahead_seconds: int = Field(default=3600, ge=600)

    # Argon2 takes 19 MiB and a core each time; more at once would only make all of them slower.
    password_checks_at_once: int = Field(default=2, ge=1, le=64)
    password_checks_waiting_max: int = Field(default=100, ge=1, le=10_000)

    # Failed logins in 15 minutes: of one login from one address; from one address whatever the
    # login. Of one login from anywhere, in an hour: high, as it also shuts the owner out.
    login_failures_pair_max: int = Field(default=10, ge=1)
    login_failures_address_max: int = Field(default=100, ge=1)
    login_failures_login_max: int = Field(default=300, ge=1)

    @property
    def key_publish_ahead(self) -> timedelta:
        return timedelta(seconds=self.key_publish_ahead_seconds)
