"""One trace goes from the request through the outbox and the broker to the consumer's handler."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from plumbing import BUMPS, COUNTERS, Settings, bump, follow, running, until

from common import db, telemetry
from common.consumer import Consumer
from common.outbox import Relay


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The global provider can be set once in a process: the tests look at one of their own.
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    yield exporter
    provider.shutdown()


async def test_the_trace_of_a_request_ends_in_the_handler(
    config: Settings, pool: db.Pool, exporter: InMemorySpanExporter
) -> None:
    with telemetry.span("POST /v1/bumps", kind=SpanKind.SERVER) as request:
        async with pool.acquire() as conn, conn.transaction():
            await bump(conn, "traced")

    async def followed() -> bool:
        return bool(await pool.fetchval("SELECT count(*) FROM followed"))

    async with running(
        Relay(config, [COUNTERS, BUMPS]).run,
        Consumer(config, pool, "test.traced", {COUNTERS.name: follow}).run,
    ):
        await until(followed)

    trace_id = request.get_span_context().trace_id
    names = {
        span.name for span in exporter.get_finished_spans() if span.context.trace_id == trace_id
    }
    assert names == {"POST /v1/bumps", "send test.counters.v1", "process test.counters.v1"}
