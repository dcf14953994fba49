"""The settings of the time bank."""

from typing import ClassVar, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from common.settings import ServiceSettings

APP_ROLE = "timebank_app"


def as_app_role(dsn: str) -> str:
    """The address that connects as the same login and works as `timebank_app`.

    That role can add to the ledger and change nothing of it. Where the login owns the tables, as
    on a laptop, it is what makes them append-only by right and not only by trigger.
    """
    parts = urlsplit(dsn)
    query = [(name, value) for name, value in parse_qsl(parts.query) if name != "role"]
    return urlunsplit(parts._replace(query=urlencode([*query, ("role", APP_ROLE)])))


class Settings(ServiceSettings):
    """From the environment, `TIMEBANK_…`."""

    model_config = SettingsConfigDict(env_prefix="TIMEBANK_", frozen=True, extra="ignore")
    service: ClassVar[str] = "timebank"

    port: int = 8002
    worker_port: int = 8022
    # How often the worker checks every book against its postings; 0: never.
    check_books_minutes: int = Field(default=60, ge=0, le=10_080)

    # How often the worker asks other cities where they stand; 0: never. And how long what is in
    # flight may take before somebody is told.
    reconcile_every_minutes: int = Field(default=5, ge=0, le=1440)
    overdue_minutes: int = Field(default=60, ge=1, le=43_200)
    # How often the worker looks for debts that go round, and proposes to net them; 0: never.
    netting_every_hours: int = Field(default=24, ge=0, le=8760)

    # The cities whose books are here, by commas; empty: all. Others are other time banks'.
    cities: str = Field(default="", pattern=r"^([a-z][a-z0-9-]{1,39}(,[a-z][a-z0-9-]{1,39})*)?$")
    # Which of several time banks on one broker this is: each reads every topic for itself.
    shard: str = Field(default="", pattern=r"^([a-z][a-z0-9-]{0,39})?$")
    # Seals the keys with which our cities sign. Without it no city clears with another.
    key_secret: SecretStr = SecretStr("")

    @field_validator("key_secret")
    @classmethod
    def must_be_long(cls, secret: SecretStr) -> SecretStr:
        if 0 < len(secret.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters, or none")
        return secret

    @model_validator(mode="after")
    def must_have_a_name(self) -> Self:
        if self.cities and not self.shard:
            raise ValueError("a time bank of some cities needs a name: shard")
        return self

    def group(self, name: str) -> str:
        """The name of a consumer group, apart from those of other time banks."""
        return f"{name}.{self.shard}" if self.shard else name

    def serves(self, city_id: str) -> bool:
        """Whether the city's book is kept here."""
        return not self.cities or city_id in self.cities.split(",")

    def for_app(self) -> "Settings":
        """The settings of everything but the migrations."""
        dsn = as_app_role(self.database_url.get_secret_value())
        return self.model_copy(update={"database_url": SecretStr(dsn)})


def read_settings() -> Settings:
    """Raises pydantic.ValidationError when something is missing or malformed."""
    return Settings()
