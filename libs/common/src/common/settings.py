"""The settings that every service has. A service adds its own fields and its environment prefix."""

from typing import ClassVar

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Read once, at the start, from the environment; frozen afterwards.

    A subclass sets `service` and `model_config = SettingsConfigDict(env_prefix="…_", …)`.
    Raises pydantic.ValidationError when something without a default is missing or malformed.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore")
    service: ClassVar[str]

    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    worker_port: int = Field(ge=1, le=65535)

    database_url: SecretStr
    database_pool_max: int = Field(default=10, ge=1, le=200)

    kafka_bootstrap: str
    kafka_idempotent: bool = True
    kafka_fetch_wait_ms: int = Field(default=500, ge=1, le=5000)
    kafka_topic_prefix: str = Field(default="", pattern=r"^[a-zA-Z0-9._-]*$")
    kafka_partitions: int = Field(default=3, ge=1, le=1000)
    kafka_replication: int = Field(default=1, ge=1, le=10)
    outbox_retention_hours: int = Field(default=168, ge=1)

    token_issuer: str
    jwks_url: str

    log_level: str = Field(default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")
    otlp_endpoint: str = ""

    def prefixed(self, name: str) -> str:
        """The name of a topic or group as the broker knows it."""
        return self.kafka_topic_prefix + name
