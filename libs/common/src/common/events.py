"""The envelope of an event: CloudEvents 1.0, Kafka protocol binding, binary content mode.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that a service publishes. A compacted one carries whole states, the others facts."""

    name: str
    compacted: bool


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `subject` is the aggregate's id and the Kafka key.

    `log_epoch` says how often the sender's broker had lost its log when this was sent.
    """

    id: UUID
    type: str
    source: str
    subject: str
    time: datetime
    data: dict[str, Any]
    traceparent: str | None = None
    log_epoch: int = 0


class MalformedEvent(ValueError):
    """A message that is not an event of ours: it goes to the dead letters."""


Headers = list[tuple[str, bytes]]


def to_message(event: Event) -> tuple[bytes, bytes, Headers]:
    """Key, value and headers of the Kafka message."""
    headers: Headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(event.id).encode()),
        ("ce_source", event.source.encode()),
        ("ce_type", event.type.encode()),
        ("ce_time", event.time.isoformat().encode()),
        ("ce_subject", event.subject.encode()),
        ("ce_logepoch", str(event.log_epoch).encode()),
        ("content-type", b"application/json"),
    ]
    if event.traceparent:
        headers.append(("traceparent", event.traceparent.encode()))
    return event.subject.encode(), orjson.dumps(event.data), headers


def read_log_epoch(headers: Iterable[tuple[str, bytes]]) -> int:
    """The log epoch of a message, 0 where there is none that can be read."""
    for name, value in headers:
        if name == "ce_logepoch":
            return int(value) if value.isdigit() else 0
    return 0


def read_source(headers: Iterable[tuple[str, bytes]]) -> str:
    """Who sent a message; empty where that cannot be read."""
    for name, value in headers:
        if name == "ce_source":
            return value.decode("utf-8", "replace")
    return ""


def read_id(headers: Iterable[tuple[str, bytes]]) -> UUID | None:
    """Which event a message is; None where that cannot be read."""
    for name, value in headers:
        if name == "ce_id":
            try:
                return UUID(value.decode())
            except ValueError:
                return None
    return None


def from_message(value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> Event:
    """The event in a Kafka message.

    Raises MalformedEvent when a required attribute is missing or the data is not a JSON object.
    """
    try:
        fields = {name: raw.decode() for name, raw in headers}
        if fields["ce_specversion"] != "1.0":
            raise MalformedEvent(f"specversion {fields['ce_specversion']} is not supported")
        data = orjson.loads(value or b"")
        if not isinstance(data, dict):
            raise MalformedEvent("the data is not a JSON object")
        time = datetime.fromisoformat(fields["ce_time"])
        if time.tzinfo is None:
            raise MalformedEvent("ce_time has no offset")
        return Event(
            id=UUID(fields["ce_id"]),
            type=fields["ce_type"],
            source=fields["ce_source"],
            subject=fields["ce_subject"],
            time=time,
            data=data,
            traceparent=fields.get("traceparent"),
            log_epoch=read_log_epoch([("ce_logepoch", fields.get("ce_logepoch", "0").encode())]),
        )
    except KeyError as missing:
        raise MalformedEvent(f"the header {missing.args[0]} is missing") from missing
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, MalformedEvent):
            raise
        raise MalformedEvent(str(error)) from error
