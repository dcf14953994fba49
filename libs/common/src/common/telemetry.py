"""OpenTelemetry traces across HTTP → outbox → Kafka → consumer. Off unless an endpoint is set.

The context of the request is stored with the outbox row (`current_traceparent`) because the relay
is another process. Attribute names follow the messaging conventions and stay in this module.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from common.settings import ServiceSettings

PROPAGATOR = TraceContextTextMapPropagator()


def configure(settings: ServiceSettings) -> None:
    """Export spans in batches to `otlp_endpoint`; without one, every span is a no-op."""
    if not settings.otlp_endpoint:
        return
    # Imported here: the exporter costs 100 ms of start-up that nobody pays with traces off.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": settings.service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(settings.otlp_endpoint)))
    trace.set_tracer_provider(provider)


def current_traceparent() -> str | None:
    """The W3C traceparent of the running span, or None outside any."""
    if not trace.get_current_span().get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind,
    traceparent: str | None = None,
    attributes: dict[str, str | int] | None = None,
) -> Iterator[Span]:
    """A span that continues `traceparent` when there is one."""
    tracer = trace.get_tracer("common")
    if traceparent is None and isinstance(tracer, trace.ProxyTracer):
        yield trace.INVALID_SPAN  # traces are off, and there is nothing to pass on
        return
    context = PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
    with tracer.start_as_current_span(
        name, context=context, kind=kind, attributes=attributes
    ) as started:
        yield started


def producing(topic: str, event_id: str) -> dict[str, str | int]:
    """Attributes of a message that is sent."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
        "messaging.message.id": event_id,
    }


def consuming(topic: str, partition: int, offset: int, group: str) -> dict[str, str | int]:
    """Attributes of a message that is handled."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": str(partition),
        "messaging.kafka.offset": offset,
        "messaging.consumer.group.name": group,
    }
