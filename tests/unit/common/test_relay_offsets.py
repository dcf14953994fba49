"""What the relay reads from the offsets at which its messages came to lie."""

from collections.abc import Sequence

import pytest
from aiokafka.structs import RecordMetadata, TopicPartition

from common.outbox import fallen_back, next_offsets

PREFIX = "t1."


def acknowledged(topic: str, offsets: Sequence[int], partition: int = 0) -> list[RecordMetadata]:
    place = TopicPartition(PREFIX + topic, partition)
    return [RecordMetadata(place.topic, partition, place, offset, None, 0, 0) for offset in offsets]


@pytest.mark.parametrize(
    ("watermark", "offsets", "lost"),
    [
        (0, [0, 1, 2], False),
        (5, [5, 6, 9], False),
        (5, [4], True),  # the log went between two batches
        (5, [5, 6, 0], True),  # it went while a batch was sent
        (0, [0, 1, 0], True),  # while the very first was
        (0, [0, 0], True),
    ],
)
def test_a_message_that_lies_before_an_earlier_one_tells_that_the_log_is_lost(
    watermark: int, offsets: list[int], lost: bool
) -> None:
    sent = acknowledged("things", offsets)
    known = {("things", 0): watermark} if watermark else {}
    assert fallen_back(sent, known, prefix=PREFIX) == ({"things"} if lost else set())


def test_partitions_and_topics_are_told_apart() -> None:
    sent = [
        *acknowledged("one", [7, 8], 0),
        *acknowledged("one", [3], 1),
        *acknowledged("other", [0]),
    ]
    known = {("one", 0): 7, ("one", 1): 3, ("other", 0): 1}
    assert fallen_back(sent, known, prefix=PREFIX) == {"other"}
    assert next_offsets(sent, prefix=PREFIX) == {("one", 0): 8, ("one", 1): 4, ("other", 0): 1}
