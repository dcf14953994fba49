"""Settings from the environment, with the prefix `PLACES_`."""

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from common.settings import ServiceSettings


class PlacesSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="PLACES_", frozen=True, extra="ignore")
    service: ClassVar[str] = "places"

    port: int = Field(default=8004, ge=1, le=65535)
    worker_port: int = Field(default=8024, ge=1, le=65535)
    # How often the worker looks for places whose compiled hours run short.
    refresh_every_s: float = Field(default=60.0, gt=0, le=3600)
