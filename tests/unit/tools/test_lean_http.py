import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from copass.lean_http import BrokenConnection, LeanClient, read_head

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answers: list[bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Gives the answers in turn, on whatever connections; yields its URL and its requests."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while answers:
                requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = answers.pop(0)
                writer.write(answer)
                if not answer or b"connection: close" in answer:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", requests


@pytest.fixture
async def client() -> AsyncIterator[LeanClient]:
    made = LeanClient(connections_max=2, timeout_s=0.5)
    yield made
    await made.close()


async def test_requests_follow_each_other_on_one_connection(client: LeanClient) -> None:
    async with server([OK, OK]) as (url, requests):
        for path in ("/a", "/b?c=d"):
            answer = await client.request("GET", url + path, {"X": "y"})
            assert (answer.status, answer.body) == (200, b"hi")
    assert [request.split(b" ")[1] for request in requests] == [b"/a", b"/b?c=d"]
    assert b"X: y\r\n" in requests[0]


async def test_a_connection_that_the_server_closed_is_not_used_again(client: LeanClient) -> None:
    closing = OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    async with server([closing, OK]) as (url, _requests):
        assert (await client.request("GET", url, {})).body == b"hi"
        assert (await client.request("GET", url, {})).body == b"hi"


@pytest.mark.parametrize("answer", [b"", OK[:20], OK[:-1]])
async def test_half_an_answer_is_an_error(client: LeanClient, answer: bytes) -> None:
    async with server([answer]) as (url, _requests):
        with pytest.raises((BrokenConnection, TimeoutError)):
            await client.request("GET", url, {})


async def test_nobody_there_is_an_error(client: LeanClient, unused_port: int) -> None:
    with pytest.raises(OSError, match=r"."):
        await client.request("GET", f"http://127.0.0.1:{unused_port}/", {})


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"SSH-2.0\r\n\r\n",
    ],
)
def test_what_it_does_not_know_it_refuses(head: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_head(head)
