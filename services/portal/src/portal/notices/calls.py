"""Notices and preferences, as identity tells them. All raise Unavailable and Refused."""

from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime

from portal.network import Network, fit
from portal.views import View

EMAIL_CHOICES = ("off", "daily", "each")


class Notice(View):
    """`text` is in each language; `subject` names what it is about by ids, numbers and dates."""

    notice_id: UUID
    kind: str
    subject: dict[str, Any]
    text: dict[str, str]
    created_at: AwareDatetime
    read_at: AwareDatetime | None = None


class NoticePage(View):
    """`unread` counts all of them, not only those of this page."""

    items: list[Notice]
    next: str | None = None
    unread: int


class Preferences(View):
    email: Literal["off", "daily", "each"]
    push: bool
    language: Literal["fr", "en"]
    email_available: bool = False
    email_failing: bool = False


class Visibility(View):
    directory: Literal["nobody", "city", "federation"]


async def listed(network: Network, token: str, limit: int, cursor: str = "") -> NoticePage:
    params = {"limit": str(limit), **({"cursor": cursor} if cursor else {})}
    answer = await network.call("identity", "GET", "/v1/notices", token=token, params=params)
    return fit("identity", NoticePage, answer)


async def read(network: Network, token: str, notice_id: UUID, key: str) -> Notice:
    """Mark one as read; the notice."""
    path = f"/v1/notices/{notice_id}/read"
    return fit(
        "identity", Notice, await network.call("identity", "POST", path, token=token, key=key)
    )


async def read_all(network: Network, token: str, key: str) -> None:
    await network.call("identity", "POST", "/v1/notices/read-all", token=token, key=key)


async def preferences(network: Network, token: str) -> Preferences:
    answer = await network.call("identity", "GET", "/v1/me/notifications", token=token)
    return fit("identity", Preferences, answer)


async def choose(network: Network, token: str, body: dict[str, Any], key: str) -> None:
    await network.call("identity", "PUT", "/v1/me/notifications", token=token, json=body, key=key)


async def visibility(network: Network, token: str) -> Visibility:
    answer = await network.call("identity", "GET", "/v1/me/visibility", token=token)
    return fit("identity", Visibility, answer)


async def show_to(network: Network, token: str, directory: str, key: str) -> None:
    body = {"directory": directory}
    await network.call("identity", "PUT", "/v1/me/visibility", token=token, json=body, key=key)
