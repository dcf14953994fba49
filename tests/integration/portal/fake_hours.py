"""A small time bank of contributions for the portal to talk to."""

import re
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import orjson
from fake_answers import listed, problem

SOMEBODY = "0192f000-0000-7000-8000-0000000000c1"


@dataclass
class FakeHours:
    """Contributions by id, and what waits for the word of whoever asks."""

    contributions: dict[str, dict[str, Any]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    flags: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    refuse: str | None = None
    lose_answer: bool = False

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        path, asked = request.url.path, request.url.params
        if not path.startswith("/v1/contributions"):
            return None
        if request.method == "GET":
            return self.read(path, asked)
        self.keys.append(request.headers["idempotency-key"])
        body = orjson.loads(request.content) if request.content else {}
        self.bodies.append((path, body))
        if self.refuse:
            return problem(409, self.refuse)
        answer = self.write(request.method, path, body)
        if self.lose_answer:
            raise httpx.ReadTimeout("slow", request=request)
        return answer

    def read(self, path: str, asked: httpx.QueryParams) -> httpx.Response:
        if path == "/v1/contributions/flags":
            return httpx.Response(200, json={"days": 60, "complete": True, "items": self.flags})
        if path == "/v1/contributions/to-confirm":
            return listed([self.contributions[i] for i in self.waiting], asked)
        if path == "/v1/contributions":
            role, member = asked.get("role"), asked.get("member_id")
            found = [
                one
                for one in self.contributions.values()
                if asked.get("status") in (None, one["status"])
                and (role != "giver" or one["giver_id"] == member)
                and (role != "beneficiary" or one["beneficiary"]["id"] == member)
            ]
            return listed(found, asked)
        one = self.contributions.get(path.rpartition("/")[2])
        return httpx.Response(200, json=one) if one else problem(404, "not_found")

    def write(self, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        if path == "/v1/contributions":
            if body["contribution_id"] not in self.contributions:
                self.add(**body)
            return httpx.Response(201, json=self.contributions[body["contribution_id"]])
        found = re.fullmatch(r"/v1/contributions/([^/]+)(?:/(\w+))?", path)
        one = self.contributions.get(found.group(1)) if found else None
        if one is None or found is None:
            return problem(404, "not_found")
        what = found.group(2)
        if method == "PATCH":
            one.update(body)
            one["version"] += 1
        elif what in ("confirm", "accept"):
            if body["version"] != one["version"]:
                return problem(409, "version_changed")
            word = one["counter"] if what == "accept" else one
            one.update(status="confirmed", confirmed_minutes=word["minutes"])
            self.waiting = [i for i in self.waiting if i != one["contribution_id"]]
        elif what in ("dispute", "rule"):
            word = {
                "minutes": body["minutes"],
                "note": body.get("note"),
                "written_by": SOMEBODY,
                "written_at": "2026-11-21T10:00:00Z",
            }
            one["version"] += 1
            if what == "dispute":
                one.update(status="disputed", counter=word)
            else:
                done = "confirmed" if body["minutes"] else "refused"
                one.update(status=done, ruling=word, confirmed_minutes=body["minutes"] or None)
        else:
            one["status"] = {"withdraw": "withdrawn", "reverse": "reversed"}[what]
        return httpx.Response(200, json=one)

    def add(self, **given: Any) -> dict[str, Any]:
        """A contribution as the time bank tells it."""
        made = {
            "contribution_id": str(uuid4()),
            "city_id": "nantes",
            "giver_id": SOMEBODY,
            "beneficiary": {"kind": "commons", "id": None},
            "group_id": None,
            "status": "logged",
            "version": 1,
            "minutes": 90,
            "performed_on": "2026-11-20",
            "activity": "cooking",
            "place_id": None,
            "note": None,
            "counter": None,
            "ruling": None,
            "logged_at": "2026-11-20T19:00:00Z",
            "confirmed_minutes": None,
            "confirmed_by": None,
            "decided_at": None,
            "transfer_id": None,
            "reversal_id": None,
            "reversed_at": None,
            "versions": [],
            **given,
        }
        made["beneficiary"] = {"id": None, **made["beneficiary"]}
        made.setdefault("logged_by", made["giver_id"])
        if not made["versions"]:
            said = {name: made[name] for name in ("minutes", "performed_on", "activity", "note")}
            made["versions"] = [
                {
                    **said,
                    "version": 1,
                    "side": "giver",
                    "place_id": None,
                    "written_by": made["logged_by"],
                    "written_at": made["logged_at"],
                }
            ]
        self.contributions[made["contribution_id"]] = made
        return made
