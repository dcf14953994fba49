"""Passes, as identity tells them. All raise Unavailable and Refused."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime

from portal.network import Network, fit
from portal.views import View


class Guest(View):
    """`mark`: four digits that the paper also bears. `name` is empty a month after the end."""

    card_id: UUID
    name: str
    places: list[UUID]
    valid_from: AwareDatetime
    valid_until: AwareDatetime
    mark: str
    status: Literal["active", "revoked"]

    def state(self, now: datetime) -> Literal["active", "coming", "revoked", "over"]:
        if self.status == "revoked":
            return "revoked"
        if now >= self.valid_until:
            return "over"
        return "active" if now >= self.valid_from else "coming"

    def is_good(self, now: datetime) -> bool:
        """Whether it opens something, now or later."""
        return self.state(now) in ("active", "coming")


class GuestWithCode(Guest):
    """`code`: what the QR on the paper says."""

    code: str


class GuestPage(View):
    items: list[Guest]
    next: str | None = None


async def enrol(
    network: Network,
    token: str,
    *,
    card_id: UUID,
    public_key: str,
    label: str,
    password: str,
    replaces: UUID | None,
) -> None:
    """Put a pass on the phone of this key. The id is also the idempotency key."""
    body = {
        "card_id": str(card_id),
        "public_key": public_key,
        "label": label,
        "password": password,
        **({"replaces": str(replaces)} if replaces else {}),
    }
    await network.call("identity", "POST", "/v1/passes", token=token, json=body, key=str(card_id))


async def invite(
    network: Network,
    token: str,
    *,
    card_id: UUID,
    name: str,
    place_id: UUID,
    valid_from: datetime | None,
    valid_until: datetime,
) -> GuestWithCode:
    """A pass for one guest; `valid_from` None: from now. The id is also the idempotency key."""
    body = {
        "card_id": str(card_id),
        "name": name,
        "places": [str(place_id)],
        "valid_until": valid_until.isoformat(),
        **({"valid_from": valid_from.isoformat()} if valid_from else {}),
    }
    answer = await network.call(
        "identity", "POST", "/v1/guest-passes", token=token, json=body, key=str(card_id)
    )
    return fit("identity", GuestWithCode, answer)


async def guests(
    network: Network, token: str, *, place_id: UUID | None, cursor: str, limit: int
) -> GuestPage:
    """One's own guests, or all of a place; the last made first."""
    params = {"limit": str(limit)}
    if place_id:
        params["place_id"] = str(place_id)
    if cursor:
        params["cursor"] = cursor
    answer = await network.call("identity", "GET", "/v1/guest-passes", token=token, params=params)
    return fit("identity", GuestPage, answer)


async def revoke(network: Network, token: str, card_id: UUID, key: str) -> None:
    path = f"/v1/guest-passes/{card_id}/revoke"
    await network.call("identity", "POST", path, token=token, key=key)
