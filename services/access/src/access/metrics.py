"""Prometheus metrics of access. The counters are made ahead: a label look-up per tap adds up."""

from typing import get_args

from prometheus_client import Counter, Gauge

from access.domain import DenyReason, GrantReason

DECISIONS = Counter("access_taps_total", "Taps decided", ["decision", "reason"])
TAPS = {
    **{reason: DECISIONS.labels("grant", reason) for reason in get_args(GrantReason)},
    **{reason: DECISIONS.labels("deny", reason) for reason in get_args(DenyReason)},
}
REFUSED = Counter("access_taps_refused_total", "Requests that were no tap", ["code"])
WAITING = Gauge("access_taps_waiting", "Taps answered and not yet confirmed in the history")
OLDEST_SECONDS = Gauge("access_taps_oldest_seconds", "Age of the oldest of them")
PROJECTED = Counter("access_projected_total", "State events read into Redis", ["topic"])
NOT_PROJECTED = Counter("access_not_projected_total", "State events not understood", ["topic"])
