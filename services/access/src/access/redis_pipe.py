"""One connection to Redis that all requests of a process share.

Commands are written as they come and answered in order, so concurrent taps travel together and
nobody waits for a free connection. It does only what the tap path needs, with hiredis to pack and
parse; measured, the general client took longer than the decision itself.
Every wait is bounded: a server that says nothing for `TIMEOUT_S` loses the connection, and all who
waited get a ConnectionError. Whether their command was done is then unknown.
"""

import asyncio
import hashlib
import ssl
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis

TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 2.0
WAITING_MAX = 10_000
SCRIPTS = Path(__file__).parent / "scripts"

Argument = str | bytes | int | float


class RedisError(Exception):
    """Redis refused a command."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, known to Redis by its SHA-1."""

    text: str
    sha1: str


def load_script(*names: str) -> Script:
    """The script in these files of `scripts/`, one after the other."""
    text = "\n".join((SCRIPTS / name).read_text(encoding="utf-8") for name in names)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def pack(*arguments: Argument) -> bytes:
    """A command as it goes over the wire."""
    # Its stub says a tuple of one.
    packed: bytes = hiredis.pack_command(arguments)  # type: ignore[arg-type]
    return packed


class _Connection(asyncio.Protocol):
    """Sends packed commands and hands each reply to the future at the head of the queue."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None
        self._replies = self._replies_before = 0
        self._watch = self._loop.call_later(TIMEOUT_S, self._check_progress)

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a TCP transport is a Transport

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._watch.cancel()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(ConnectionError("the connection to Redis was lost"))

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        while (reply := self._parser.gets()) is not False:
            self._replies += 1
            future = self._waiting.popleft()
            if future.done():  # its caller was cancelled
                continue
            if isinstance(reply, hiredis.ReplyError):
                future.set_exception(RedisError(str(reply)))
            else:
                future.set_result(reply)

    def send(self, packed: bytes) -> asyncio.Future[Any]:
        if self._transport is None or len(self._waiting) >= WAITING_MAX:
            raise ConnectionError("Redis is away or overloaded")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(future)
        self._transport.write(packed)
        return future

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _check_progress(self) -> None:
        if self._waiting and self._replies == self._replies_before:
            self.close()
        self._replies_before = self._replies
        self._watch = self._loop.call_later(TIMEOUT_S, self._check_progress)


class RedisPipe:
    """Connects when first used, and again after a loss. Use from one event loop."""

    def __init__(self, url: str) -> None:
        """`url` is `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS."""
        self._url = urlsplit(url)
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    async def call(self, *arguments: Argument) -> Any:
        """Send one command. Raises RedisError, ConnectionError or TimeoutError."""
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = await self._connect_once()
        return await connection.send(pack(*arguments))

    async def run(self, script: Script, *arguments: Argument) -> Any:
        """Run a script, by its hash when Redis knows it. Raises like `call`."""
        try:
            return await self.call("EVALSHA", script.sha1, 0, *arguments)
        except RedisError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            return await self.call("EVAL", script.text, 0, *arguments)

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.close()
            await asyncio.sleep(0)  # the transport tells the protocol in the next turn of the loop

    async def _connect_once(self) -> _Connection:
        """Connect; those who come meanwhile wait for the same attempt."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> _Connection:
        url = self._url
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection,
                url.hostname or "127.0.0.1",
                url.port or 6379,
                ssl=ssl.create_default_context() if url.scheme == "rediss" else None,
            )
            try:
                if url.password:
                    credentials = [unquote(part) for part in (url.username, url.password) if part]
                    await connection.send(pack("AUTH", *credentials))
                if url.path.strip("/"):
                    await connection.send(pack("SELECT", url.path.strip("/")))
            except BaseException:
                connection.close()
                raise
        self._connection = connection
        return connection
