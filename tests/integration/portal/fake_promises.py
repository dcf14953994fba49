"""A small time bank of pledges, standings and solidarity for the portal to talk to."""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import orjson
from fake_answers import listed, problem

STEPS = {"grant": "granted", "decline": "declined", "withdraw": "withdrawn"}


@dataclass
class FakePromises:
    """The pledges and requests of one member, and how they stand."""

    pledges: list[dict[str, Any]] = field(default_factory=list)
    standing: str = "good"
    exempt_until: str | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    gifts: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refuse: str | None = None

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        path, asked = request.url.path, request.url.params
        if path.startswith("/v1/standings/"):
            return httpx.Response(200, json={"standing": self.standing})
        if path.endswith("/exemption"):
            exempt = self.standing == "exempt"
            return httpx.Response(200, json={"exempt": exempt, "until": self.exempt_until})
        if path.endswith("/rules"):
            rules = {
                "carry_minutes_max": 600,
                "grace_days": 14,
                "rent_cents_per_hour": None,
                "rent_minutes_max_per_month": 0,
            }
            return httpx.Response(200, json=rules)
        if not path.startswith(("/v1/pledges", "/v1/solidarity")):
            return None
        if request.method == "GET":
            return self.read(path, asked)
        assert request.headers["idempotency-key"]
        body = orjson.loads(request.content) if request.content else {}
        self.bodies.append((path, body))
        if self.refuse:
            return problem(409, self.refuse)
        return self.write(request.method, path, body)

    def read(self, path: str, asked: httpx.QueryParams) -> httpx.Response:
        if path == "/v1/pledges":
            found = [x for x in self.pledges if asked.get("status") in (None, x["status"])]
            return listed(found, asked)
        if path == "/v1/solidarity/requests":
            found = [x for x in self.requests if asked.get("status") in (None, x["status"])]
            return listed(found, asked)
        last = path.rpartition("/")[2]
        for one in (*self.pledges, *self.requests):
            if last in (one.get("pledge_id"), one.get("request_id")):
                return httpx.Response(200, json=one)
        return problem(404, "not_found")

    def write(self, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        if path == "/v1/pledges":
            return httpx.Response(201, json=self.add_pledge(**body))
        if path == "/v1/solidarity/gifts":
            self.gifts.append(body)
            return httpx.Response(201, json=body)
        if path == "/v1/solidarity/requests":
            return httpx.Response(201, json=self.add_request(**body))
        for request in self.requests:
            if request["request_id"] in path:
                request["status"] = STEPS[path.rpartition("/")[2]]
                return httpx.Response(200, json=request)
        for pledge in self.pledges:
            if pledge["pledge_id"] in path:
                if method == "PATCH":
                    pledge.update(body)
                else:
                    pledge["status"] = "ended"
                return httpx.Response(200, json=pledge)
        return problem(404, "not_found")

    def add_pledge(self, **given: Any) -> dict[str, Any]:
        """A pledge as the time bank tells it: 1 h 30 of 4 h given in November."""
        made = {
            "pledge_id": str(uuid4()),
            "status": "running",
            "starts_on": "2026-10-01",
            "ends_before": None,
            "skills": ["cuisine"],
            "terms": [{"from_month": "2026-10-01", "minutes_per_month": 240}],
            "minutes_per_month": 240,
            "carried_minutes": 0,
            "periods": [
                period("2026-10-01", 240, 240, "met"),
                period("2026-11-01", 240, 90, "open"),
            ],
            **given,
        }
        self.pledges.append(made)
        return made

    def add_request(self, **given: Any) -> dict[str, Any]:
        """A request for help as the time bank tells it."""
        made = {
            "request_id": str(uuid4()),
            "member_id": "0192f000-0000-7000-8000-0000000000c1",
            "minutes": 120,
            "for": "pledge",
            "status": "asked",
            "asked_at": "2026-11-20T10:00:00Z",
            "granted_minutes": None,
            "reason": None,
            **given,
        }
        self.requests.append(made)
        return made


def period(month: str, owed: int, met: int, state: str) -> dict[str, Any]:
    """A month of a pledge; the grace of October ends on the 14th of November."""
    return {
        "month": month,
        "owed_minutes": owed,
        "met_minutes": met,
        "short_minutes": owed - met,
        "state": state,
        "grace_until": "2026-11-14" if month < "2026-11" else "2026-12-14",
    }
