"""What a board tells the service of itself, for operators to see before somebody stands outside."""

import time
from datetime import UTC, datetime
from typing import Any

from copass_edge.reader.clock import Clock
from copass_edge.reader.journal import Journal
from copass_edge.reader.papers import Held

PROGRAM = "copass-reader 0.1.0"
OFFSET_MS_MAX = 2**31 - 1


def health_of(journal: Journal, held: Held | None, clock: Clock) -> dict[str, Any]:
    """The body of `PUT /v1/readers/self/health`. `problems` are codes: `no_snapshot`,
    `snapshot_expired`, `snapshot_incomplete`, `clock_not_trusted`, `taps_refused`,
    `decided_otherwise`."""
    now = clock.now()
    header = held.snapshot.header if held else None
    counts = journal.counts()
    found = {
        "no_snapshot": header is None,
        "snapshot_expired": header is not None and now >= header.expires_at,
        "snapshot_incomplete": header is not None and not header.is_complete,
        "clock_not_trusted": not clock.is_trusted,
        "taps_refused": bool(counts.get("refused")),
        "decided_otherwise": bool(counts["differing"]),
    }
    oldest = journal.oldest_waiting()
    off_ms = round((time.time() - now) * 1000)
    return {
        "program": PROGRAM,
        "snapshot_issued_at": instant(header.issued_at) if header else None,
        "clock_offset_ms": max(-OFFSET_MS_MAX, min(off_ms, OFFSET_MS_MAX)),
        "backlog": journal.backlog(),
        "oldest_waiting_at": None if oldest is None else instant(oldest),
        "problems": [code for code, is_so in found.items() if is_so],
    }


def instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
