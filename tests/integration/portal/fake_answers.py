"""Answers as every service gives them."""

from typing import Any

import httpx


def problem(status: int, code: str, field: str = "") -> httpx.Response:
    body: dict[str, Any] = {
        "type": f"/problems/{code}",
        "status": status,
        "code": code,
        "detail": code,
        "errors": [{"field": field, "message": code}] if field else [],
    }
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json"})


def listed(items: list[Any], asked: httpx.QueryParams) -> httpx.Response:
    """A page of a list, with a number as its cursor."""
    start, limit = int(asked.get("cursor", "0")), int(asked.get("limit", "50"))
    more = str(start + limit) if start + limit < len(items) else None
    return httpx.Response(200, json={"items": items[start : start + limit], "next": more})
