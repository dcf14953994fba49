"""Listings and exchanges, as the time bank tells them. All raise Unavailable and Refused."""

import re
from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from portal.network import Network, fit, fit_all
from portal.people import folded
from portal.views import View, one_of

# A stem may end otherwise than its word: perceuse, perceux.
STEM_CHARS_MIN = 3

KINDS = ("offer", "need")
WHATS = ("service", "lend", "surplus")
CATEGORIES = (
    "cooking",
    "cleaning",
    "repair",
    "garden",
    "care",
    "childcare",
    "teaching",
    "reception",
    "transport",
    "animation",
    "administration",
    "craft",
    "music",
    "digital",
    "tools",
    "household",
    "furniture",
    "leisure",
    "clothing",
    "books",
    "food",
    "compost",
    "other",
)


STATUSES = (
    "requested",
    "agreed",
    "handed_over",
    "claimed",
    "done",
    "returned",
    "settled",
    "declined",
    "cancelled",
    "expired",
)
FOUND_IN = ("title", "skill", "text", "similar")
MATCH_CODES = ("skill", "category", "words", "near", "same_city", "schedule", "price")
Category = Annotated[str, one_of(CATEGORIES, "other")]


class Slot(View):
    """Every week: 0 is Monday; hours of the city's clock, as `14:00`."""

    weekday: int = Field(ge=0, le=6)
    from_: str = Field(alias="from")
    until: str


class Schedule(View):
    text: str | None = None
    slots: tuple[Slot, ...] = ()


class Listing(View):
    """`title` and `text` are None once they were erased."""

    listing_id: UUID
    city_id: str
    owner_kind: Literal["member", "organisation"]
    owner_id: UUID
    kind: Literal["offer", "need"]
    what: Literal["service", "lend", "surplus"]
    title: str | None
    text: str | None = None
    category: Category
    skills: tuple[str, ...] = ()
    place_id: UUID | None = None
    latitude: float | None = None
    longitude: float | None = None
    schedule: Schedule
    price_minutes: int
    deposit_minutes: int
    quantity: int | None = None
    quantity_left: int | None = None
    available_until: date | None = None
    visibility: Literal["city", "federation"]
    status: Literal["open", "closed"]
    closed_because: str | None = None

    @property
    def owner(self) -> UUID | None:
        """The member whose it is; None when it is an organisation's."""
        return self.owner_id if self.owner_kind == "member" else None

    def spelled(self, stems: str) -> str:
        """Words by their stems (`perceux, roue`) as the listing spells them, where it does."""
        words = re.findall(r"\w+", f"{self.title or ''} {self.text or ''}")
        found = []
        for stem in stems.split(", "):
            beginning = folded(stem)[: max(STEM_CHARS_MIN, len(stem) - 2)]
            like = (word for word in words if folded(word).startswith(beginning))
            found.append(next(like, stem).lower())
        return ", ".join(found)


class HitReason(View):
    word: str
    found_in: Annotated[str, one_of(FOUND_IN, "text")]


class Hit(View):
    listing: Listing
    distance_m: int | None = None
    reasons: tuple[HitReason, ...] = ()


class HitPage(View):
    """`words`: what was looked for of the text; None: there was none."""

    words: list[str] | None = None
    items: list[Hit]
    next: str | None = None


class ListingPage(View):
    items: list[Listing]
    next: str | None = None


class MatchReason(View):
    code: Annotated[str, one_of(MATCH_CODES, "words")]
    points: int
    value: str


class Match(View):
    your_listing_id: UUID
    listing: Listing
    points: int
    reasons: tuple[MatchReason, ...]


class Party(View):
    kind: Literal["member", "organisation"]
    id: UUID


class Exchange(View):
    exchange_id: UUID
    listing_id: UUID
    city_id: str
    kind: Literal["offer", "need"]
    what: Literal["service", "lend", "surplus"]
    category: Category
    requester_id: UUID
    giver: Party
    receiver: Party
    minutes: int
    deposit_minutes: int
    quantity: int | None = None
    from_on: date | None = None
    until_on: date | None = None
    status: Annotated[str, one_of(STATUSES, "unknown")]
    message: str | None = None
    claimed_minutes: int | None = None
    claim_note: str | None = None
    settled_minutes: int | None = None
    ruling_note: str | None = None
    created_at: AwareDatetime

    @property
    def owner(self) -> Party:
        """Whose listing it is."""
        return self.giver if self.kind == "offer" else self.receiver

    @property
    def people(self) -> list[UUID]:
        return [party.id for party in (self.giver, self.receiver) if party.kind == "member"]


class ExchangePage(View):
    items: list[Exchange]
    next: str | None = None


async def search(network: Network, token: str, asked: dict[str, str]) -> HitPage:
    params = {name: value for name, value in asked.items() if value}
    answer = await network.call("timebank", "GET", "/v1/listings", token=token, params=params)
    return fit("timebank", HitPage, answer)


async def get(network: Network, token: str, listing_id: UUID) -> Listing:
    path = f"/v1/listings/{listing_id}"
    return fit("timebank", Listing, await network.call("timebank", "GET", path, token=token))


async def own(network: Network, token: str, limit: int = 50, cursor: str = "") -> ListingPage:
    params = {"limit": str(limit), **({"cursor": cursor} if cursor else {})}
    answer = await network.call("timebank", "GET", "/v1/listings/mine", token=token, params=params)
    return fit("timebank", ListingPage, answer)


async def publish(network: Network, token: str, body: dict[str, Any]) -> None:
    """`body` has its listing_id, which is the idempotency key too."""
    key = body["listing_id"]
    await network.call("timebank", "POST", "/v1/listings", token=token, json=body, key=key)


async def change(
    network: Network, token: str, listing_id: UUID, body: dict[str, Any], key: str
) -> None:
    path = f"/v1/listings/{listing_id}"
    await network.call("timebank", "PATCH", path, token=token, json=body, key=key)


async def open_or_close(
    network: Network, token: str, listing_id: UUID, what: str, key: str
) -> None:
    """close or reopen."""
    path = f"/v1/listings/{listing_id}/{what}"
    await network.call("timebank", "POST", path, token=token, key=key)


async def matches_of(network: Network, token: str, listing_id: UUID) -> list[Match]:
    path = f"/v1/listings/{listing_id}/matches"
    return fit_all("timebank", Match, await network.call("timebank", "GET", path, token=token))


async def matches(network: Network, token: str) -> list[Match]:
    """What answers the visitor's own listings, the best first."""
    answer = await network.call("timebank", "GET", "/v1/matches", token=token)
    return fit_all("timebank", Match, answer)


async def ask(network: Network, token: str, listing_id: UUID, body: dict[str, Any]) -> None:
    """`body` has its exchange_id, which is the idempotency key too."""
    path = f"/v1/listings/{listing_id}/requests"
    await network.call("timebank", "POST", path, token=token, json=body, key=body["exchange_id"])


async def exchange(network: Network, token: str, exchange_id: UUID) -> Exchange:
    path = f"/v1/exchanges/{exchange_id}"
    return fit("timebank", Exchange, await network.call("timebank", "GET", path, token=token))


async def exchanges(
    network: Network, token: str, *, listing_id: UUID | None = None, limit: int, cursor: str = ""
) -> ExchangePage:
    """The visitor's own exchanges, the newest first."""
    params = {"limit": str(limit)}
    if listing_id:
        params["listing_id"] = str(listing_id)
    if cursor:
        params["cursor"] = cursor
    answer = await network.call("timebank", "GET", "/v1/exchanges", token=token, params=params)
    return fit("timebank", ExchangePage, answer)


async def step(
    network: Network,
    token: str,
    exchange_id: UUID,
    what: str,
    key: str,
    body: dict[str, Any] | None = None,
) -> None:
    """agree, decline, cancel, done, handed-over, returned, damaged, accept or rule."""
    path = f"/v1/exchanges/{exchange_id}/{what}"
    await network.call("timebank", "POST", path, token=token, json=body, key=key)
