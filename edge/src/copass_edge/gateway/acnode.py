"""The words of ACNode firmware. Pure.

    GET  /{node}/card/{uid}                    → 2 maintainer, 1 user, -1 nobody
    GET  /{node}/status/                       → 1 in service
    POST /{node}/tooluse/{0|1}/{uid}           → 1
    POST /{node}/tooluse/time/for/{uid}/{s}    → 1
    POST /{node}/doorevent/{0|1}/{uid}         → 1
    POST anything else                         → -1

With `X-AC-Key: <key of the node>`; in JSON as `{"numeric_status": …}` with `X-AC-JSON`.

Its firmware makes opening the ordinary case. One role opens on any number but a negative one, 0
included; another on anything but -1 and 0, so on every HTTP error, whose status it negates. A body
is read with strtol from a buffer that is not ended, so digits must be followed by something else,
and a chunked body would begin with its own length, a positive number. Hence one rule for every
refusal and failure: status 200, Content-Length, and `-1` with a line feed.
"""

import json
import re
from dataclasses import dataclass
from typing import Literal

from copass_edge.gateway.swipes import Verdict

NO = -1
USER = 1
MAINTAINER = 2

PATHS = (
    ("card", re.compile(r"/([0-9]{1,10})/card/([0-9A-Za-z]{1,40})")),
    ("status", re.compile(r"/([0-9]{1,10})/status/?")),
    ("use", re.compile(r"/([0-9]{1,10})/tooluse/([01])/[0-9A-Za-z]{1,40}")),
    ("use", re.compile(r"/([0-9]{1,10})/tooluse/time/for/[0-9A-Za-z]{1,40}/([0-9]{1,9})")),
    ("doorevent", re.compile(r"/([0-9]{1,10})/doorevent/([01])/([0-9A-Za-z]{1,40})")),
)
METHODS = {"card": "GET", "status": "GET", "use": "POST", "doorevent": "POST"}


@dataclass(frozen=True, slots=True)
class Question:
    """`uid`: as written in the path. `value`: the 0 or 1, or the seconds."""

    kind: Literal["card", "status", "use", "doorevent"]
    node: int
    uid: str = ""
    value: int = 0


def read_path(method: str, path: str) -> Question | None:
    """What a node asks; None for what it may not, or what nobody does."""
    for kind, pattern in PATHS:
        match = pattern.fullmatch(path)
        if match is None or METHODS[kind] != method:
            continue
        node = int(match[1])
        if kind == "card":
            return Question("card", node, uid=match[2])
        if kind == "status":
            return Question("status", node)
        if kind == "doorevent":
            return Question("doorevent", node, uid=match[3], value=int(match[2]))
        return Question("use", node, value=int(match[2]))
    return None


def status_of(verdict: Verdict) -> int:
    """The number for a card: the team of the place are its maintainers."""
    if not verdict.granted:
        return NO
    return MAINTAINER if verdict.reason == "staff" else USER


def answer(number: int, *, in_json: bool) -> tuple[bytes, str]:
    """Body and media type. No text fields: the firmware copies them one byte short."""
    if in_json:
        return json.dumps({"numeric_status": number}).encode() + b"\n", "application/json"
    return b"%d\n" % number, "text/plain"
