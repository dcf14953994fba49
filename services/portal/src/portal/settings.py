"""What the portal is told by its environment. It has no database and no Kafka."""

from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class PortalSettings(BaseSettings):
    """Read once, at the start; frozen afterwards. Addresses are without a trailing slash."""

    model_config = SettingsConfigDict(env_prefix="PORTAL_", frozen=True, extra="ignore")
    service: ClassVar[str] = "portal"

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    identity_url: str
    timebank_url: str
    access_url: str
    places_url: str
    # Where people see the portal. With https the cookies are marked Secure.
    public_url: str
    # Seals the session cookie and the forms. A new one signs everybody out.
    session_secret: SecretStr = Field(min_length=32)
    log_level: str = Field(default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")

    @field_validator("identity_url", "timebank_url", "access_url", "places_url", "public_url")
    @classmethod
    def an_http_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError("must be an http or https address")
        return value.rstrip("/")

    @property
    def secure(self) -> bool:
        return self.public_url.startswith("https://")
