"""Notices, preferences, export and erasure, as identity answers them."""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import orjson
from fake_answers import listed, problem

PASSWORD = "correct horse"


def export(service: str, tables: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json={"service": service, "tables": tables})


@dataclass
class FakeNews:
    """What identity keeps for one member."""

    notices: list[dict[str, Any]] = field(default_factory=list)
    preferences: dict[str, Any] = field(
        default_factory=lambda: {
            "email": "daily",
            "push": True,
            "language": "fr",
            "email_available": True,
            "email_failing": False,
            "push_key": None,
        }
    )
    directory: str = "city"
    erased: bool = False
    refuse_erasure: str | None = None

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        path, method = request.url.path, request.method
        if method != "GET" and path.startswith(("/v1/notices", "/v1/me/", "/v1/members/")):
            assert request.headers["idempotency-key"]
        body = orjson.loads(request.content) if request.content else {}
        if path == "/v1/notices":
            page = orjson.loads(listed(self.notices, request.url.params).content)
            unread = sum(notice["read_at"] is None for notice in self.notices)
            return httpx.Response(200, json={**page, "unread": unread})
        if path == "/v1/notices/read-all":
            for notice in self.notices:
                notice["read_at"] = "2026-11-23T10:00:00Z"
            return httpx.Response(200, json={"read": len(self.notices)})
        for notice in self.notices:
            if path == f"/v1/notices/{notice['notice_id']}/read":
                notice["read_at"] = "2026-11-23T10:00:00Z"
                return httpx.Response(200, json=notice)
        if path == "/v1/me/notifications":
            self.preferences |= body
            return httpx.Response(200, json=self.preferences)
        if path == "/v1/me/visibility":
            self.directory = body.get("directory", self.directory)
            return httpx.Response(200, json={"directory": self.directory})
        if path.endswith("/export"):
            return export("identity", {"member": [{"display_name": "Claire Démo"}]})
        if path.endswith("/erase"):
            if self.refuse_erasure:
                return problem(409, self.refuse_erasure)
            if body["password"] != PASSWORD:
                return problem(403, "wrong_password", "body.password")
            self.erased = True
            return httpx.Response(200, json={"status": "erased"})
        return None

    def add(self, kind: str, text: str, **subject: Any) -> dict[str, Any]:
        """A notice that nobody has read."""
        made = {
            "notice_id": str(uuid4()),
            "kind": kind,
            "subject": subject,
            "text": {"fr": text, "en": text},
            "created_at": "2026-11-22T10:00:00Z",
            "read_at": None,
        }
        self.notices.append(made)
        return made
