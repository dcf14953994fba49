"""Prometheus metrics of the plumbing, one registry per process, served at /metrics."""

from prometheus_client import Counter, Gauge, Histogram

HTTP_REQUESTS = Counter("http_requests_total", "Requests answered", ["method", "route", "status"])
HTTP_SECONDS = Histogram(
    "http_request_duration_seconds",
    "Time to answer a request",
    ["method", "route"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
OUTBOX_PUBLISHED = Counter("outbox_published_total", "Events acknowledged by the broker", ["topic"])
OUTBOX_WAITING = Gauge("outbox_waiting", "Events committed and not yet acknowledged")
OUTBOX_OLDEST_SECONDS = Gauge("outbox_oldest_seconds", "Age of the oldest of them")
OUTBOX_LOG_LOST = Counter("outbox_log_lost_total", "Times a topic was found to have lost its log")
EVENTS_HANDLED = Counter("events_handled_total", "Events handled", ["group", "topic", "outcome"])
CONSUMER_LAG = Gauge("consumer_lag", "Messages not yet handled", ["group", "topic", "partition"])
