"""The time zone of each city, asked once for each: a city does not move."""

from zoneinfo import ZoneInfo

from portal.i18n import zone
from portal.network import Network, Refused, Unavailable, fit
from portal.views import View

DEFAULT_ZONE = "Europe/Paris"


class City(View):
    timezone: str


class CityZones:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._known: dict[str, ZoneInfo] = {}

    async def of(self, token: str, city_id: str | None) -> ZoneInfo:
        """The zone of a city; that of Paris when it cannot be had."""
        if city_id is None:
            return zone(DEFAULT_ZONE)
        if city_id not in self._known:
            try:
                answer = await self._network.call(
                    "identity", "GET", f"/v1/cities/{city_id}", token=token
                )
                self._known[city_id] = zone(fit("identity", City, answer).timezone)
            except (Unavailable, Refused):
                return zone(DEFAULT_ZONE)
        return self._known[city_id]
