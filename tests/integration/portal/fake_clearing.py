"""A small time bank of minutes between cities for the portal to talk to."""

import re
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import orjson
from fake_answers import listed, problem

KEY = "00112233445566778899aabbccddeeff" * 2
STATES = {"accept": "active", "suspend": "suspended", "resume": "active", "end": "ended"}


def audits() -> dict[str, Any]:
    """What an auditor finds: one transfer late, one by night, one question of their own."""
    then = "2026-11-20T03:10:00Z"
    transfer_id = "0192f000-0000-7000-8000-0000000000fc"
    pair = {"city_id": "nantes", "peer_city_id": "rennes"}
    moment = {"at": then, "in_transit_minutes": 30}
    return {
        "in-transit": {
            "items": [
                {
                    **pair,
                    "transfer_id": transfer_id,
                    "minutes": 30,
                    "sent_at": then,
                    "age_seconds": 93_700,
                    "overdue": True,
                    "queries": 4,
                }
            ],
            "next": None,
        },
        "anomalies": {
            "crossings": 61,
            "items": [
                {
                    "rule": "unusual_size",
                    "from_city": "nantes",
                    "to_city": "rennes",
                    "at": then,
                    "reason": "600 minutes.",
                    "figures": {"minutes": 600, "median": 60, "transfers": 60},
                    "transfers": 1,
                    "transfer_ids": [transfer_id],
                },
                {
                    "rule": "of_tomorrow",
                    "from_city": "nantes",
                    "to_city": "rennes",
                    "at": then,
                    "reason": "A rule <newer> than this page.",
                    "figures": {},
                    "transfers": 1,
                    "transfer_ids": [transfer_id],
                },
            ],
        },
        "looks": {
            "items": [
                {
                    "looked_at": then,
                    "actor_id": "0192f000-0000-7000-8000-0000000000c1",
                    "role": "auditor",
                    "city_id": "nantes",
                    "path": "/v1/clearing/positions",
                }
            ],
            "next": None,
        },
        "statement": {
            "opening": {**moment, "balance_minutes": 0},
            "closing": {**moment, "balance_minutes": -90},
            "items": [
                {
                    "posted_at": then,
                    "kind": "arrival",
                    "minutes": -90,
                    "balance_minutes": -90,
                    "clearing_id": transfer_id,
                    "log_index": 12,
                }
            ],
            "next": "1",
        },
    }


@dataclass
class FakeClearing:
    """What one city, nantes, agreed with others, and what crossed."""

    sent: list[dict[str, Any]] = field(default_factory=list)
    received: list[dict[str, Any]] = field(default_factory=list)
    agreements: list[dict[str, Any]] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    positions: list[dict[str, Any]] = field(default_factory=list)
    reversal: dict[str, Any] = field(default_factory=dict)
    nettings: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    audits: dict[str, Any] = field(default_factory=audits)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    refuse: str | None = None
    lose_answer: bool = False
    away: bool = False

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        path, asked = request.url.path, request.url.params
        ours = ("clearing", "agreements", "audit", "nettings", "reconciliation")
        if path.split("/")[2] not in ours:
            return None
        if self.away:
            return httpx.Response(503)
        if request.method == "GET":
            self.asked.append((path, dict(asked)))
            return self.read(path, asked)
        self.keys.append(request.headers["idempotency-key"])
        body = orjson.loads(request.content) if request.content else {}
        self.bodies.append((path, body))
        if self.refuse:
            return problem(409, self.refuse)
        answer = self.write(path, body)
        if self.lose_answer:
            raise httpx.ReadTimeout("slow", request=request)
        return answer

    def read(self, path: str, asked: httpx.QueryParams) -> httpx.Response:
        lists = {
            "/v1/clearing/transfers": self.sent,
            "/v1/clearing/arrivals": self.received,
            "/v1/clearing/positions": self.positions,
            "/v1/agreements": self.agreements,
            "/v1/nettings": self.nettings,
            "/v1/reconciliation": self.pairs,
        }
        if path.startswith("/v1/audit/exports/"):
            return httpx.Response(200, content=b"PK", headers={"content-type": "application/zip"})
        if path.startswith("/v1/audit/"):
            return httpx.Response(200, json=self.audits[path.rpartition("/")[2]])
        if path in lists:
            wanted = {n: asked[n] for n in ("city_id", "peer_city_id") if n in asked}
            return listed([x for x in lists[path] if wanted.items() <= x.items()], asked)
        if path.endswith("/history"):
            return httpx.Response(200, json={"items": self.changes})
        for one in self.sent:
            if one["transfer_id"] == path.rpartition("/")[2]:
                return httpx.Response(200, json=one)
        return problem(404, "not_found")

    def write(self, path: str, body: dict[str, Any]) -> httpx.Response:
        if path == "/v1/clearing/transfers":
            to = body["to"]
            for one in self.sent:
                if one["transfer_id"] == body["transfer_id"]:
                    return httpx.Response(201, json=one)
            made = self.add_sent(
                transfer_id=body["transfer_id"],
                peer_city_id=to["city_id"],
                payee=to["member_id"],
                minutes=body["minutes"],
                memo=body.get("memo"),
            )
            return httpx.Response(201, json=made)
        if path == "/v1/agreements":
            return httpx.Response(201, json=self.add_agreement(**{**body, "state": "proposed"}))
        if path.endswith("/reversal"):
            return httpx.Response(200, json=self.reversal)
        if path.startswith("/v1/nettings/"):
            return httpx.Response(200, json=self.nettings[0])
        found = re.fullmatch(r"/v1/agreements/nantes/([a-z-]+)/([a-z]+)", path)
        assert found, path
        for one in self.agreements:
            if one["peer_city_id"] == found.group(1):
                one["state"] = STATES[found.group(2)]
                one["suspended_by_us"] = one["state"] == "suspended"
                return httpx.Response(200, json=one)
        return problem(404, "not_found")

    def add_netting(self, **given: Any) -> dict[str, Any]:
        """Rennes owes Nantes, Nantes owes Brest, Brest owes Rennes: an hour less each."""
        circle = [("rennes", "nantes"), ("nantes", "brest"), ("brest", "rennes")]
        made = {
            "netting_id": str(uuid4()),
            "city_id": "nantes",
            "decider": "brest",
            "state": "proposed",
            "minutes": 180,
            "cities": ["brest", "nantes", "rennes"],
            "cycles": [{"cities": ["brest", "rennes", "nantes"], "minutes": 60}],
            "moves": [
                {"debtor": a, "creditor": b, "minutes": 60, "owed_minutes": 90, "left_minutes": 30}
                for a, b in circle
            ],
            "expires_at": "2026-11-29T10:00:00Z",
            "proposed_at": "2026-11-22T10:00:00Z",
            "waiting_for": None,
            **given,
        }
        self.nettings.insert(0, made)
        return made

    def add_pair(self, **given: Any) -> dict[str, Any]:
        made = {
            "city_id": "nantes",
            "peer_city_id": "rennes",
            "state": "agrees",
            "in_flight_minutes": 0,
            "unexplained_minutes": 0,
            "peer_said_at": "2026-11-22T10:00:00Z",
            "alarms": [],
            **given,
        }
        self.pairs.append(made)
        return made

    def add_sent(self, **given: Any) -> dict[str, Any]:
        """A transfer to Rennes that nobody has answered yet."""
        made = {
            "transfer_id": str(uuid4()),
            "direction": "out",
            "city_id": "nantes",
            "peer_city_id": "rennes",
            "minutes": 60,
            "levy_minutes": 0,
            "payee": str(uuid4()),
            "memo": None,
            "state": "sent",
            "reason": None,
            "overdue": False,
            "sent_at": "2026-11-22T10:00:00Z",
            "deadline": "2026-11-24T10:00:00Z",
            "answered_at": None,
            "reverses": None,
            **given,
        }
        self.sent.insert(0, made)
        return made

    def add_received(self, **given: Any) -> dict[str, Any]:
        """A transfer from Rennes that has arrived."""
        made = {
            "transfer_id": str(uuid4()),
            "direction": "in",
            "city_id": "nantes",
            "peer_city_id": "rennes",
            "minutes": 90,
            "levy_minutes": 0,
            "payee": str(uuid4()),
            "state": "accepted",
            "reason": None,
            "decided_at": "2026-11-21T10:00:00Z",
            "deadline": "2026-11-24T10:00:00Z",
            "reverses": None,
            **given,
        }
        self.received.insert(0, made)
        return made

    def add_agreement(self, peer: str = "rennes", **given: Any) -> dict[str, Any]:
        """An agreement in force: 100 h given, 50 h received, warned from 80 %."""
        made = {
            "agreement_id": str(uuid4()),
            "city_id": "nantes",
            "peer_city_id": peer,
            "state": "active",
            "proposed_by_us": True,
            "suspended_by_us": False,
            "suspended_by_peer": False,
            "limit_out_minutes": 6000,
            "limit_in_minutes": 3000,
            "soft_percent": 80,
            "levy_out_permille": 0,
            "levy_in_permille": 0,
            "peer_key": KEY,
            "own_key": KEY[::-1],
            "version": 1,
            "changed_at": "2026-11-01T10:00:00Z",
            **given,
        }
        self.agreements.append(made)
        return made

    def add_position(
        self, peer: str = "rennes", city: str = "nantes", **given: Any
    ) -> dict[str, Any]:
        made = {
            "city_id": city,
            "peer_city_id": peer,
            "clearing_minutes": 0,
            "in_transit_minutes": 0,
            "in_transit": 0,
            "overdue": 0,
            "oldest_sent_at": None,
            "returned": 0,
            "state": "active",
            "limit_out_minutes": 6000,
            "limit_in_minutes": 3000,
            "soft": False,
            **given,
        }
        self.positions.append(made)
        return made
