"""A small exchange board for the portal to talk to."""

import re
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import orjson
from fake_answers import listed, problem

NEIGHBOUR = "0192f000-0000-7000-8000-0000000000c1"
AFTER = {
    "agree": "agreed",
    "decline": "declined",
    "cancel": "cancelled",
    "done": "done",
    "handed-over": "handed_over",
    "returned": "returned",
    "damaged": "claimed",
    "accept": "settled",
    "rule": "settled",
}


@dataclass
class FakeBoard:
    """Listings and exchanges by id. `me` is whose they are when `mine` is asked for."""

    me: str = ""
    listings: dict[str, dict[str, Any]] = field(default_factory=dict)
    exchanges: dict[str, dict[str, Any]] = field(default_factory=dict)
    hits: list[dict[str, Any]] = field(default_factory=list)
    matches: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    refuse: str | None = None

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        path, asked = request.url.path, request.url.params
        if not re.match(r"/v1/(listings|exchanges|matches)\b", path):
            return None
        if request.method == "GET":
            return self.read(path, asked)
        self.keys.append(request.headers["idempotency-key"])
        body = orjson.loads(request.content) if request.content else {}
        self.bodies.append((path, body))
        if self.refuse:
            return problem(409, self.refuse)
        return self.write(request.method, path, body)

    def read(self, path: str, asked: httpx.QueryParams) -> httpx.Response:
        if path == "/v1/listings":
            self.asked.append(dict(asked))
            found = [
                {"listing": one, "distance_m": None, "reasons": []}
                for one in self.listings.values()
                if one["status"] == "open"
            ]
            return listed(self.hits or found, asked)
        if path == "/v1/listings/mine":
            return listed([x for x in self.listings.values() if x["owner_id"] == self.me], asked)
        if path == "/v1/matches" or path.endswith("/matches"):
            return httpx.Response(200, json={"items": self.matches})
        if path == "/v1/exchanges":
            wanted = asked.get("listing_id")
            found = [x for x in self.exchanges.values() if wanted in (None, x["listing_id"])]
            return listed(found, asked)
        known = self.listings | self.exchanges
        one = known.get(path.rpartition("/")[2])
        return httpx.Response(200, json=one) if one else problem(404, "not_found")

    def write(self, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        if path == "/v1/listings":
            return httpx.Response(201, json=self.add(owner_id=self.me, **body))
        parts = path.split("/")
        if parts[2] == "exchanges":
            one = self.exchanges.get(parts[3])
            if one is None:
                return problem(404, "not_found")
            one["status"] = AFTER[parts[4]]
            return httpx.Response(200, json=one)
        listing = self.listings.get(parts[3])
        if listing is None:
            return problem(404, "not_found")
        if method == "PATCH":
            listing.update(body)
        elif parts[4] == "requests":
            made = self.add_exchange(listing, exchange_id=body["exchange_id"])
            return httpx.Response(201, json=made)
        else:
            listing["status"] = {"close": "closed", "reopen": "open"}[parts[4]]
        return httpx.Response(200, json=listing)

    def add(self, **given: Any) -> dict[str, Any]:
        """A listing as the time bank tells it."""
        made = {
            "listing_id": str(uuid4()),
            "city_id": "nantes",
            "owner_kind": "member",
            "owner_id": NEIGHBOUR,
            "kind": "offer",
            "what": "service",
            "title": "Réparation de vélo",
            "text": None,
            "category": "repair",
            "skills": [],
            "place_id": None,
            "latitude": None,
            "longitude": None,
            "schedule": {"text": None, "slots": []},
            "price_minutes": 60,
            "deposit_minutes": 0,
            "quantity": None,
            "quantity_left": given.get("quantity"),
            "available_until": None,
            "visibility": "city",
            "status": "open",
            "closed_because": None,
            "created_at": "2026-11-20T10:00:00Z",
            "version": 1,
            **given,
        }
        self.listings[made["listing_id"]] = made
        return made

    def add_exchange(self, listing: dict[str, Any], **given: Any) -> dict[str, Any]:
        """An exchange over a listing, asked for by whoever does not own it."""
        other = self.me if listing["owner_id"] != self.me else NEIGHBOUR
        giver, receiver = listing["owner_id"], given.get("requester_id", other)
        if listing["kind"] == "need":
            giver, receiver = receiver, giver
        made = {
            "exchange_id": str(uuid4()),
            "listing_id": listing["listing_id"],
            "city_id": "nantes",
            "kind": listing["kind"],
            "what": listing["what"],
            "category": listing["category"],
            "requester_id": other,
            "giver": {"kind": "member", "id": giver},
            "receiver": {"kind": "member", "id": receiver},
            "minutes": listing["price_minutes"],
            "deposit_minutes": listing["deposit_minutes"],
            "quantity": None,
            "from_on": None,
            "until_on": None,
            "status": "requested",
            "message": None,
            "claimed_minutes": None,
            "claim_note": None,
            "settled_minutes": None,
            "ruling_note": None,
            "created_at": "2026-11-21T10:00:00Z",
            "ended_at": None,
            "version": 1,
            **given,
        }
        self.exchanges[made["exchange_id"]] = made
        return made
