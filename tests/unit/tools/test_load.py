import json
from uuid import UUID, uuid4

import pytest

from copass.bench.load import Presented, answer_end, tap_requests

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nx: y\r\n\r\nbody"


def test_an_answer_ends_where_its_length_says() -> None:
    assert answer_end(OK) == len(OK)
    assert answer_end(OK + OK) == len(OK)


@pytest.mark.parametrize("cut", [0, 10, 40, len(OK) - 1])
def test_half_an_answer_has_no_end(cut: int) -> None:
    assert answer_end(OK[:cut]) == 0


def test_an_answer_without_a_length_is_refused() -> None:
    with pytest.raises(ValueError, match="without a length"):
        answer_end(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")


def test_each_request_is_whole_and_a_tap_of_its_own() -> None:
    doors = [uuid4(), uuid4()]
    make = tap_requests([Presented(door, "r.k", "0011", "out") for door in doors])
    bodies = []
    for _ in range(3):
        head, _, body = make().partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        bodies.append(json.loads(body))
    assert [body["door_id"] for body in bodies] == [str(doors[n]) for n in (0, 1, 0)]
    assert len({UUID(body["tap_id"]) for body in bodies}) == 3
