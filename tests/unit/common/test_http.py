"""An answer leaves in one piece, and a stream is not held back."""

import asyncio
from typing import cast

import uvicorn
from starlette.types import Receive, Scope, Send

from common.http import JoiningHttp, JoiningTransport

heard = asyncio.Event()


class Wire:
    """What a transport was told, in order."""

    def __init__(self) -> None:
        self.told: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append(b"closed")

    def is_closing(self) -> bool:
        return bool(self.told and self.told[-1] == b"closed")


def joining(wire: Wire) -> JoiningTransport:
    return JoiningTransport(cast(asyncio.Transport, wire))


async def test_head_and_body_are_one_write() -> None:
    wire = Wire()
    transport = joining(wire)
    transport.write(b"head ")
    transport.write(b"body")
    assert wire.told == [b"head body"]
    transport.write(b"next ")
    await asyncio.sleep(0)
    assert wire.told == [b"head body", b"next "]


async def test_a_head_alone_leaves_at_the_next_turn() -> None:
    wire = Wire()
    transport = joining(wire)
    transport.write(b"head")
    assert wire.told == []
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert wire.told == [b"head"]


async def test_nothing_is_lost_at_the_end() -> None:
    wire = Wire()
    transport = joining(wire)
    transport.write(b"last words")
    transport.close()
    assert wire.told == [b"last words", b"closed"]
    assert transport.is_closing()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """/slow sends its second half when the first was heard."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}
    await send(start)
    if scope["path"] == "/slow":
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await asyncio.wait_for(heard.wait(), 10)
        await send({"type": "http.response.body", "body": b"cd"})
    elif scope["path"] == "/":
        await send({"type": "http.response.body", "body": b"abcd"})


async def test_a_server_answers_streams_and_closes() -> None:
    config = uvicorn.Config(app, port=0, http=JoiningHttp, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await reader.readuntil(b"abcd")).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\nab")).startswith(b"HTTP/1.1 200 OK\r\n")
            heard.set()
            assert await reader.read() == b"cd"  # and the end of the connection
            writer.close()
            await writer.wait_closed()
    finally:
        server.should_exit = True
        await serving
