from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.events import Event, MalformedEvent, from_message, read_log_epoch, to_message

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(
    data=st.dictionaries(st.text(max_size=20), JSON, max_size=5),
    subject=st.text(min_size=1, max_size=50),
    epoch=st.integers(0, 10_000),
)
def test_a_message_reads_back_as_the_event_that_was_sent(
    data: dict[str, object], subject: str, epoch: int
) -> None:
    event = Event(
        id=uuid4(),
        type="test.thing.done.v1",
        source="/test",
        subject=subject,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        data=data,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        log_epoch=epoch,
    )
    key, value, headers = to_message(event)
    assert key == subject.encode()
    assert from_message(value, headers) == event
    assert read_log_epoch(headers) == epoch


@given(value=st.binary(), headers=st.lists(st.tuples(st.text(), st.binary())))
def test_anything_else_is_malformed_and_nothing_worse(
    value: bytes, headers: list[tuple[str, bytes]]
) -> None:
    with pytest.raises(MalformedEvent):
        from_message(value, headers)


@pytest.mark.parametrize("missing", ["ce_id", "ce_type", "ce_source", "ce_time", "ce_specversion"])
def test_a_missing_attribute_is_named(missing: str) -> None:
    _, value, headers = to_message(
        Event(uuid4(), "t", "/s", "k", datetime(2026, 1, 1, tzinfo=UTC), {})
    )
    with pytest.raises(MalformedEvent, match=missing):
        from_message(value, [header for header in headers if header[0] != missing])
