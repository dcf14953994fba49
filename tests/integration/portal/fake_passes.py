"""The passes of identity, for the portal to talk to."""

import re
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import orjson
from fake_answers import listed, problem

CODE = "CG1.AEAQCAIBAEAQCAIBAEAQCAIBAE"


@dataclass
class FakePasses:
    """`refuse`: the code with which the next command is refused."""

    password: str
    refuse: str = ""
    phones: list[dict[str, Any]] = field(default_factory=list)
    guests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        path, method = request.url.path, request.method
        if not path.startswith(("/v1/passes", "/v1/guest-passes")):
            return None
        if method == "POST":
            self.keys.append(request.headers["idempotency-key"])
            if self.refuse:
                return problem(409, self.refuse)
        body = orjson.loads(request.content) if request.content else {}
        if path == "/v1/passes":
            if body.pop("password") != self.password:
                return problem(403, "wrong_password")
            self.phones.append(body)
            return httpx.Response(201, json=body)
        if path == "/v1/guest-passes" and method == "GET":
            place_id = request.url.params.get("place_id")
            found = [one for one in self.guests if place_id in (None, *one["places"])]
            return listed(found, request.url.params)
        if path == "/v1/guest-passes":
            guest = self.add_guest(**body)
            return httpx.Response(201, json={**guest, "code": CODE})
        revoked = re.fullmatch(r"/v1/guest-passes/(.+)/revoke", path)
        for guest in self.guests:
            if revoked and guest["card_id"] == revoked[1]:
                guest["status"] = "revoked"
                return httpx.Response(200, json=guest)
        return problem(404, "not_found")

    def add_guest(self, **changes: Any) -> dict[str, Any]:
        guest = {
            "card_id": str(uuid4()),
            "name": "Ravélo",
            "places": [],
            "valid_from": "2026-11-23T08:00:00Z",
            "valid_until": "2026-11-24T08:00:00Z",
            "mark": "3F2A",
            "status": "active",
            **changes,
        }
        self.guests = [one for one in self.guests if one["card_id"] != guest["card_id"]]
        self.guests.insert(0, guest)
        return guest
