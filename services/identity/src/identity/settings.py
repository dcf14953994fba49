"""The settings of identity, from variables that begin with `IDENTITY_`."""

from datetime import timedelta
from typing import ClassVar, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from common.settings import ServiceSettings
from identity.cards.personalisation import is_link
from identity.notices.channels import read_sender, read_smtp_url


class IdentitySettings(ServiceSettings):
    """`card_pepper` is shared with access; `key_secret` is known to identity alone."""

    model_config = SettingsConfigDict(env_prefix="IDENTITY_", frozen=True, extra="ignore")
    service: ClassVar[str] = "identity"

    port: int = Field(default=8001, ge=1, le=65535)
    worker_port: int = Field(default=8021, ge=1, le=65535)

    card_pepper: SecretStr = Field(min_length=32)
    key_secret: SecretStr = Field(min_length=32)

    # Where the keys of cryptographic cards are (common.ntag424.load_keys); empty: there are none.
    card_keys: str = ""
    # The address that such a card shows to a phone; the card writes its message behind it.
    card_url: str = "https://copass.example/c"

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

    # E-mail is off without `smtp_url`, web push without `push_contact` (mailto: or https:, told to
    # the push services). `portal_url` is where the links of the e-mails lead.
    smtp_url: str = ""
    smtp_password: SecretStr = SecretStr("")
    mail_from: str = ""
    portal_url: str = ""
    push_contact: str = Field(default="", pattern=r"^((mailto:|https://)[!-~]+)?$")

    @model_validator(mode="after")
    def check_mail(self) -> Self:
        """An e-mail needs a server, a sender and a place to link to."""
        if self.smtp_url:
            for name, read in (("smtp_url", read_smtp_url), ("mail_from", read_sender)):
                try:
                    read(getattr(self, name))
                except ValueError as error:
                    raise ValueError(f"{name} {error}") from error
            if not self.portal_url.startswith(("https://", "http://")):
                raise ValueError("portal_url must begin with https:// (or http://)")
        return self

    @property
    def key_publish_ahead(self) -> timedelta:
        return timedelta(seconds=self.key_publish_ahead_seconds)

    @field_validator("card_url")
    @classmethod
    def must_hold_a_message(cls, url: str) -> str:
        if not is_link(url):
            raise ValueError("must begin with https:// and be at most 190 characters long")
        return url
