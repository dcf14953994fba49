"""Four small services for the portal to talk to, and what is in them."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import httpx
import orjson
from fake_answers import listed, problem
from fake_board import FakeBoard
from fake_clearing import FakeClearing
from fake_doors import FakeDoors
from fake_hours import FakeHours
from fake_news import FakeNews, export
from fake_passes import FakePasses
from fake_promises import FakePromises

from portal.settings import PortalSettings

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)  # a Monday, 11:00 in Paris
EMAIL, PASSWORD = "claire@example.org", "correct horse"


@dataclass
class FakeNetwork:
    """Answers as the services do, from what is in these fields. `down`: services that are away."""

    down: set[str] = field(default_factory=set)
    now: datetime = NOW
    token_seconds: int = 600
    me: dict[str, Any] = field(default_factory=dict)
    cards: list[dict[str, Any]] = field(default_factory=list)
    accounts: list[dict[str, Any]] = field(default_factory=list)
    postings: list[dict[str, Any]] = field(default_factory=list)
    transfers: dict[str, dict[str, Any]] = field(default_factory=dict)
    places: list[dict[str, Any]] = field(default_factory=list)
    open_places: set[str] = field(default_factory=set)
    presence: dict[str, Any] = field(default_factory=dict)
    refuse_transfer: str | None = None
    lose_transfer_answer: bool = False
    garbage: bool = False
    refresh_uses: dict[str, int] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    statements: list[dict[str, str]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    addresses: list[str | None] = field(default_factory=list)
    signed_out_everywhere: bool = False
    people: list[dict[str, Any]] = field(default_factory=list)
    cities: list[dict[str, Any]] = field(default_factory=list)
    hours: FakeHours = field(default_factory=FakeHours)
    news: FakeNews = field(default_factory=FakeNews)
    board: FakeBoard = field(default_factory=FakeBoard)
    promises: FakePromises = field(default_factory=FakePromises)
    clearing: FakeClearing = field(default_factory=FakeClearing)
    doors: FakeDoors = field(default_factory=FakeDoors)
    passes: FakePasses = field(default_factory=lambda: FakePasses(PASSWORD))

    async def answer(self, request: httpx.Request) -> httpx.Response:
        service = request.url.host
        self.calls.append((service, request.method, request.url.path))
        if service in self.down:
            raise httpx.ConnectError("refused", request=request)
        if self.garbage:
            return httpx.Response(200, text="<html>proxy login</html>")
        answers = {
            "identity": self.identity,
            "timebank": self.timebank,
            "access": self.access,
            "places": self.register,
        }
        return answers[service](request)

    def identity(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/names-inside"):
            return self.doors.answer(request) or problem(404, "not_found")
        if path == "/v1/oauth/token":
            form = {k: v[0] for k, v in parse_qs(request.content.decode()).items()}
            self.addresses.append(request.headers.get("x-forwarded-for"))
            if form["grant_type"] == "password":
                if (form.get("username"), form.get("password")) != (EMAIL, PASSWORD):
                    return httpx.Response(400, json={"error": "invalid_grant"})
            else:
                used = self.refresh_uses.get(form["refresh_token"], 0)
                self.refresh_uses[form["refresh_token"]] = used + 1
                if used or self.signed_out_everywhere:
                    return httpx.Response(400, json={"error": "invalid_grant"})
            made = len(self.refresh_uses)
            return httpx.Response(
                200,
                json={
                    "access_token": f"access-{made}",
                    "token_type": "Bearer",
                    "expires_in": self.token_seconds,
                    "refresh_token": f"refresh-{made}",
                },
            )
        if path == "/v1/oauth/revoke":
            self.revoked.append(parse_qs(request.content.decode())["token"][0])
            return httpx.Response(200)
        if self.signed_out_everywhere or "authorization" not in request.headers:
            return problem(401, "unauthenticated")
        if path == "/v1/me":
            return httpx.Response(200, json=self.me)
        if path == "/v1/names":
            wanted = orjson.loads(request.content)["member_ids"]
            found = [p for p in self.people if p["member_id"] in wanted]
            return httpx.Response(200, json={"items": found})
        if path == "/v1/directory":
            words = request.url.params.get("q", "").lower()
            found = [
                person
                for person in self.people
                if person["city_id"] == request.url.params.get("city_id", person["city_id"])
                and all(
                    any(part.startswith(word) for part in person["display_name"].lower().split())
                    for word in words.split()
                )
            ]
            return listed(found, request.url.params)
        if path == "/v1/cities":
            return listed(self.cities, request.url.params)
        if path.startswith("/v1/cities/"):
            return httpx.Response(200, json={"timezone": "Europe/Paris"})
        for part in (self.news, self.passes):
            if (answer := part.answer(request)) is not None:
                return answer
        if path == "/v1/cards":
            return httpx.Response(200, json={"items": self.cards, "next": None})
        if block := re.fullmatch(r"/v1/cards/(.+)/block", path):
            self.keys.append(request.headers["idempotency-key"])
            for card in self.cards:
                if card["card_id"] == block.group(1):
                    if card["status"] == "replaced":
                        return problem(409, "card_replaced")
                    card["status"] = "blocked"
                    return httpx.Response(200, json=card)
        return problem(404, "not_found")

    def timebank(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/export"):
            return export("timebank", {"contributions": [{"minutes": 60, "note": "=cmd()"}]})
        for part in (self.hours, self.promises, self.board, self.clearing):
            answer = part.answer(request)
            if answer is not None:
                return answer
        if "/statement." in path:
            self.statements.append(dict(request.url.params))
            return httpx.Response(200, content=b"a statement")
        if path == "/v1/accounts":
            return httpx.Response(200, json={"items": self.accounts, "next": None})
        if path.endswith("/postings"):
            return httpx.Response(200, json={"items": self.postings, "next": None})
        if path == "/v1/transfers":
            self.keys.append(request.headers["idempotency-key"])
            if self.refuse_transfer:
                return problem(409, self.refuse_transfer)
            body = orjson.loads(request.content)
            if body["transfer_id"] not in self.transfers:
                self.transfers[body["transfer_id"]] = {
                    "transfer_id": body["transfer_id"],
                    "memo": body.get("memo"),
                    "postings": [
                        {"account_id": body["from_account"], "minutes": -body["minutes"]},
                        {
                            "account_id": body.get("to_account") or body["to_member"],
                            "minutes": body["minutes"],
                        },
                    ],
                }
            if self.lose_transfer_answer:
                raise httpx.ReadTimeout("slow", request=request)
            return httpx.Response(201, json=self.transfers[body["transfer_id"]])
        found = self.transfers.get(path.rpartition("/")[2])
        return httpx.Response(200, json=found) if found else problem(404, "not_found")

    def register(self, request: httpx.Request) -> httpx.Response:
        path, asked = request.url.path, request.url.params
        if path == "/v1/places":
            found = [
                p
                for p in self.places
                if asked.get("city_id", p["city_id"]) == p["city_id"]
                and asked.get("q", "").lower() in p["name"].lower()
                and (asked.get("open_now") != "true" or p["place_id"] in self.open_places)
            ]
            start, limit = int(asked.get("cursor", "0")), int(asked["limit"])
            more = str(start + limit) if start + limit < len(found) else None
            return httpx.Response(200, json={"items": found[start : start + limit], "next": more})
        place_id = path.split("/")[3]
        for place in self.places:
            if place["place_id"] == place_id:
                if not path.endswith("/openness"):
                    return httpx.Response(200, json=place)
                is_open = place_id in self.open_places
                known = place["opening_hours"] is not None
                change = {"utc": "2026-11-23T17:00:00Z", "local": "2026-11-23T18:00:00+01:00"}
                return httpx.Response(
                    200,
                    json={
                        "open": is_open,
                        "reason": "open"
                        if is_open
                        else "outside_hours"
                        if known
                        else "hours_unknown",
                        "next_change": change if known else None,
                    },
                )
        return problem(404, "not_found")

    def access(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/export"):
            return export("access", {"taps": []})
        doors = self.doors.answer(request)
        if doors is not None:
            return doors
        found = self.presence.get(request.url.path.split("/")[3])
        return httpx.Response(200, json=found) if found else problem(404, "not_found")

    # --- making things

    def add_place(
        self, name: str, *, city: str = "nantes", is_open: bool = True, **more: Any
    ) -> str:
        place_id = str(uuid4())
        self.places.append(
            {
                "place_id": place_id,
                "city_id": city,
                "status": "in_network",
                "name": name,
                "address": "1 rue de la Paix",
                "postcode": "44000",
                "commune": "Nantes",
                "timezone": "Europe/Paris",
                "opening_hours": "Mo-Fr 09:00-18:00",
                "capacity": 40,
                "latitude": 47.2,
                "longitude": -1.55,
                "doors": [{"name": "Entrée", "kind": "public", "opening_hours": None}],
                "attribution": "France Tiers-Lieux",
                "licence": "Licence Ouverte 2.0",
                **more,
            }
        )
        if is_open:
            self.open_places.add(place_id)
        return place_id

    def add_person(self, name: str, member_id: str | None = None, city: str = "nantes") -> str:
        """Somebody whom the directory shows."""
        member_id = member_id or str(uuid4())
        self.people.append({"member_id": member_id, "city_id": city, "display_name": name})
        return member_id

    def add_card(self, label: str = "Carte bleue", status: str = "active") -> str:
        card_id = str(uuid4())
        self.cards.append(
            {
                "card_id": card_id,
                "status": status,
                "label": label,
                "uid_tail": "A1B2",
                "created_at": "2026-09-01T08:00:00Z",
            }
        )
        return card_id


def settings_of(**changes: Any) -> PortalSettings:
    return PortalSettings(
        **{
            "identity_url": "http://identity",
            "timebank_url": "http://timebank",
            "access_url": "http://access",
            "places_url": "http://places",
            "public_url": "http://portal.test",
            "session_secret": "a secret of more than 32 characters",
            **changes,
        }
    )
