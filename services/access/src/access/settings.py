"""Configuration of the access service, from the environment (`ACCESS_…`)."""

from typing import ClassVar, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from common.settings import ServiceSettings


class Settings(ServiceSettings):
    """`card_pepper` is identity's: both must know the same card by the same hash."""

    model_config = SettingsConfigDict(env_prefix="ACCESS_", frozen=True, extra="ignore")
    service: ClassVar[str] = "access"

    port: int = Field(default=8003, ge=1, le=65535)
    worker_port: int = Field(default=8023, ge=1, le=65535)
    redis_url: SecretStr
    card_pepper: SecretStr = Field(min_length=32)
    # Where the keys of cryptographic cards are (common.ntag424.load_keys); empty: there are none.
    card_keys: str = ""
    # How long the projector's fetches wait (None: like the others). It bounds how late a block is
    # learnt from a broker that answers a waiting fetch only at its end, as Tansu does.
    projection_fetch_wait_ms: int | None = Field(default=None, ge=1, le=5000)
    # How long taps are still decided when nothing can be learnt any more (broker or worker away).
    # Within it a card blocked meanwhile opens doors; after it the service says not ready.
    projection_lease_seconds: int = Field(default=900, ge=5, le=86_400)
    # Signs what readers decide alone from; at least 32 characters. Empty: they may not.
    key_secret: SecretStr = SecretStr("")
    # How long a reader may decide alone for visitors, and for residents and staff of its place.
    snapshot_hours: int = Field(default=8, ge=1, le=168)
    snapshot_household_hours: int = Field(default=72, ge=1, le=720)
    snapshot_cards_max: int = Field(default=1_000_000, ge=1, le=5_000_000)
    # Whether readers are given what tells one card from another without asking, and whose cards'
    # own keys (docs/decisions/offline-secrets.md).
    offline_secrets: bool = True
    offline_card_keys: Literal["none", "household", "all"] = "household"

    @field_validator("key_secret")
    @classmethod
    def check_key_secret(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters, or none")
        return value
