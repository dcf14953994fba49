"""What access tells operators: two hours, two refusals, one tap, two readers."""

from dataclasses import dataclass, field
from typing import Any

import httpx
from fake_answers import problem

THEN = "2026-11-23T09:30:00Z"
DOOR = "0192f000-0000-7000-8000-0000000000ad"
ELSE = "0192f000-0000-7000-8000-0000000000ae"
LIVE = b'event: tap\ndata: {"reason":"place_full"}\n\n'


def readers() -> list[dict[str, Any]]:
    silent: dict[str, Any] = {
        "doors": [],
        "last_tap_at": None,
        "reported_at": None,
        "program": None,
        "snapshot_issued_at": None,
        "clock_offset_ms": None,
        "backlog": None,
    }
    return [
        {**silent, "reader_id": "0192f000-0000-7000-8000-0000000000b1", "trouble": []},
        {
            "reader_id": "0192f000-0000-7000-8000-0000000000b2",
            "doors": [DOOR],
            "last_tap_at": THEN,
            "reported_at": THEN,
            "program": "copass-reader <1>",
            "snapshot_issued_at": THEN,
            "clock_offset_ms": -2500,
            "backlog": 7,
            "trouble": ["clock_off", "of_tomorrow"],
        },
    ]


@dataclass
class FakeDoors:
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    readers: list[dict[str, Any]] = field(default_factory=readers)

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        path = request.url.path
        self.asked.append((path, dict(request.url.params)))
        counted = {"day": "2026-11-22", "direction": "in", "decision": "deny"}
        hour = {"start": "2026-11-23T08:00:00Z", "entered": 3, "left": 1, "peak": 3}
        answers: dict[str, Any] = {
            "occupancy": {"capacity": 40, "hours": [hour, {**hour, "peak": 2, "entered": 0}]},
            "counts": {
                "items": [
                    {**counted, "reason": "outside_hours", "taps": 1204},
                    {**counted, "reason": "of_tomorrow", "taps": 2},
                    {**counted, "decision": "grant", "reason": "staff", "taps": 9},
                ]
            },
            "health": {"items": self.readers, "next": None},
            "taps": {
                "items": [
                    {
                        "decision_id": DOOR,
                        "door_id": DOOR,
                        "direction": "in",
                        "decision": "deny",
                        "reason": "place_full",
                        "occurred_at": THEN,
                    }
                ],
                "next": None,
            },
        }
        if path.endswith("/evacuation"):
            people = [{"member_id": one, "zone": None, "since": THEN} for one in (DOOR, ELSE)]
            asked = "members" in request.url.params
            zones = [{"zone": "Atelier <b>", "inside": 0}, {"zone": None, "inside": 2}]
            found = {"at": THEN, "inside": 2, "zones": zones}
            return httpx.Response(200, json={**found, "people": people if asked else None})
        if path.endswith("/names-inside"):
            return httpx.Response(200, json={"items": [{"id": DOOR, "name": "Ravélo Invitée"}]})
        if path == "/v1/live":
            if "place_id" not in request.url.params:
                return problem(404, "not_found")
            headers = {"content-type": "text/event-stream"}
            return httpx.Response(200, content=LIVE, headers=headers)
        found = answers.get(path.rpartition("/")[2])
        return httpx.Response(200, json=found) if found else None
