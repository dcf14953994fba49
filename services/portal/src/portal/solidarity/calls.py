"""Gifts to the solidarity fund and requests for help. All raise Unavailable and Refused."""

from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from portal.network import Network, fit, fit_all
from portal.views import View


class HelpRequest(View):
    request_id: UUID
    member_id: UUID
    minutes: int
    purpose: Literal["balance", "pledge"] = Field(alias="for")
    status: Literal["asked", "granted", "declined", "withdrawn"]
    asked_at: AwareDatetime
    granted_minutes: int | None = None
    reason: str | None = None


async def give(network: Network, token: str, gift_id: str, minutes: int, anonymous: bool) -> None:
    body = {"gift_id": gift_id, "minutes": minutes, "anonymous": anonymous}
    await network.call(
        "timebank", "POST", "/v1/solidarity/gifts", token=token, json=body, key=gift_id
    )


async def ask(network: Network, token: str, body: dict[str, Any]) -> None:
    """`body` has its request_id, which is the idempotency key too."""
    key = body["request_id"]
    await network.call(
        "timebank", "POST", "/v1/solidarity/requests", token=token, json=body, key=key
    )


async def own(network: Network, token: str) -> list[HelpRequest]:
    """The visitor's own requests, the newest first."""
    answer = await network.call("timebank", "GET", "/v1/solidarity/requests", token=token)
    return fit_all("timebank", HelpRequest, answer)


async def asked_in(network: Network, token: str, city_id: str) -> list[HelpRequest]:
    """What waits for the stewards of a city."""
    params = {"city_id": city_id, "status": "asked"}
    answer = await network.call(
        "timebank", "GET", "/v1/solidarity/requests", token=token, params=params
    )
    return fit_all("timebank", HelpRequest, answer)


async def get(network: Network, token: str, request_id: UUID) -> HelpRequest:
    """A request with its reason."""
    path = f"/v1/solidarity/requests/{request_id}"
    return fit("timebank", HelpRequest, await network.call("timebank", "GET", path, token=token))


async def act(
    network: Network,
    token: str,
    request_id: UUID,
    what: str,
    key: str,
    body: dict[str, Any] | None = None,
) -> None:
    """grant, decline or withdraw."""
    path = f"/v1/solidarity/requests/{request_id}/{what}"
    await network.call("timebank", "POST", path, token=token, json=body, key=key)
