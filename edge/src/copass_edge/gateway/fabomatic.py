"""The words of Fab-O-matic boards, over MQTT. Pure.

A board asks on `machine/{id}` and takes the next message on `machine/{id}/reply` for the answer:
there is no request id. So a reply that comes late would answer another question; the gateway
answers in order, in time, and never an overtaken question.

`request_ok: false` is no denial to a board: it then asks its own cache and list. So a refusal is
always `request_ok: true, is_valid: false`, which also clears the card from its cache.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

from copass_edge.gateway.swipes import Verdict

TOPIC = "machine"
# The board waits two seconds for a reply; beyond this it might already wait for another.
REPLY_SECONDS_MAX = 1.5

USER_LEVEL = 1
STAFF_LEVEL = 2

Action = Literal[
    "checkuser", "checkmachine", "startuse", "inuse", "stopuse", "maintenance", "alive"
]


@dataclass(frozen=True, slots=True)
class Query:
    action: Action
    uid: str = ""
    seconds: int = 0


def request_topic(machine: str) -> str:
    return f"{TOPIC}/{machine}"


def reply_topic(machine: str) -> str:
    return f"{TOPIC}/{machine}/reply"


def command_topic(machine: str) -> str:
    """Where a backend may start and stop a machine from afar; nothing of ours does."""
    return f"{TOPIC}/{machine}/request"


def read_query(payload: bytes) -> Query | None:
    """What a board asks; None for anything else."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    match document:
        case {"action": "checkmachine" | "alive" as action}:
            return Query(action)
        case {
            "action": "checkuser" | "startuse" | "inuse" | "stopuse" | "maintenance" as action,
            "uid": str() as uid,
        }:
            seconds = document.get("duration", 0)
            is_count = isinstance(seconds, int) and not isinstance(seconds, bool)
            if not is_count or not 0 <= seconds <= 2**31:
                return None
            return Query(action, uid, seconds)
    return None


def user_reply(verdict: Verdict) -> dict[str, Any]:
    """No name is sent, because none is known here; the board shows the words instead."""
    level = STAFF_LEVEL if verdict.reason == "staff" else USER_LEVEL
    return {
        "request_ok": True,
        "is_valid": verdict.granted,
        "level": level if verdict.granted else 0,
        "name": "Co-pass" if verdict.granted else "",
    }


def machine_reply(label: str, machine_type: int, logoff_minutes: int) -> dict[str, Any]:
    """Maintenance is never due: no book of it is kept here."""
    return {
        "request_ok": True,
        "is_valid": True,
        "allowed": True,
        "maintenance": False,
        "logoff": logoff_minutes,
        "name": label,
        "type": machine_type,
    }
