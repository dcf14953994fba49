"""The words of Fabman bridges. Pure.

    POST bridge/access     {"keys":[{"type":"nfca","token":"04A2…"}],"configVersion":0}
        → {"type":"allowed","sessionId":…,"messages":[…]} or {"type":"denied","messages":[…]}
    POST bridge/heartbeat  {"configVersion":0} → {"configVersion":0}
    POST bridge/stop       {"stopType":"normal","currentSession":{"id":…}} → 204

With `Authorization: Bearer <key of the equipment>`. A bridge reads any `type` but `allowed` as a
denial, also in an error page.
"""

import json
import zlib
from typing import Any, Literal

from copass_edge.gateway.swipes import Verdict

KEYS_MAX = 8


def read_keys(body: bytes) -> list[str] | None:
    """The NFC tokens in the body of bridge/access, each once; None for any other shape.

    A token of another technology (`em4102`, an e-mail address) names no card of the network.
    """
    document = read_object(body)
    keys = document.get("keys") if document is not None else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= KEYS_MAX:
        return None
    tokens: list[str] = []
    for key in keys:
        match key:
            case {"type": "nfca", "token": str() as token}:
                if token not in tokens:
                    tokens.append(token)
            case {"type": str(), "token": str()}:
                pass
            case _:
                return None
    return tokens


def read_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in a body."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def is_stop(body: bytes) -> bool:
    """Whether a body is that of bridge/stop."""
    match read_object(body):
        case {"stopType": str(), "currentSession": {"id": int() | str()}}:
            return True
    return False


def access_answer(verdict: Verdict, kind: Literal["door", "machine"]) -> dict[str, Any]:
    """At a door the session ends as it begins; at a machine bridge/stop ends it."""
    messages = [verdict.fr, verdict.en]
    if not verdict.granted:
        return {"type": "denied", "messages": messages}
    answer = {"type": "allowed", "sessionId": session_id(verdict), "messages": messages}
    return {**answer, "stopped": True} if kind == "door" else answer


def session_id(verdict: Verdict) -> int:
    """A number that fits a bridge's 32-bit integer and is not 0, its word for no session."""
    return zlib.crc32((verdict.decision_id or verdict.reason).encode()) & 0x7FFF_FFFF or 1
