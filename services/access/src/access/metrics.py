"""Prometheus metrics of access. The counters are made ahead: a label look-up per tap adds up."""

from typing import get_args

from prometheus_client import Counter, Gauge, Histogram

from copass_tap.decision import DenyReason, GrantReason

DECISIONS = Counter("access_taps_total", "Taps decided", ["decision", "reason"])
TAPS = {
    **{reason: DECISIONS.labels("grant", reason) for reason in get_args(GrantReason)},
    **{reason: DECISIONS.labels("deny", reason) for reason in get_args(DenyReason)},
}
REFUSED = Counter("access_taps_refused_total", "Requests that were no tap", ["code"])
TAP_SECONDS = Histogram(
    "access_tap_duration_seconds",
    "Time from the request of a tap to its answer",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2.5),
)
WAITING = Gauge("access_taps_waiting", "Taps answered and not yet confirmed in the history")
OLDEST_SECONDS = Gauge("access_taps_oldest_seconds", "Age of the oldest of them")
PROJECTED = Counter("access_projected_total", "State events read into Redis", ["topic"])
NOT_PROJECTED = Counter("access_not_projected_total", "State events not understood", ["topic"])
