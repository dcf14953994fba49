"""One connection to Redis that all requests of a process share.

Commands are answered in the order in which they are written, so concurrent taps travel together
and nobody waits for a free connection. redis-py connects (TLS, login, choice of database); then its
transport is ours: its client, made for one command at a time, costs a tap several times as much
(docs/decisions/access-tap-path.md).
Every wait is bounded: a server that says nothing for `TIMEOUT_S` loses the connection, and all who
waited get a ConnectionError. Whether their command was done is then unknown.
"""

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import hiredis
from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import RedisError as ClientError

TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 2.0
WAITING_MAX = 10_000
SCRIPTS = Path(__file__).parent / "scripts"

Argument = str | bytes | int | float


class RedisError(Exception):
    """Redis refused a command."""


class ScriptUnknown(RedisError):
    """Redis does not know a script by this hash: it was restarted, or its scripts flushed."""


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


class _Pipeline(asyncio.Protocol):
    """Writes packed commands, and hands each reply to the future at the head of the queue."""

    def __init__(self, connection: Connection) -> None:
        """`connection` is connected, and used by nobody else from now on."""
        self._connection = connection
        # There is no public way to it. Nothing was sent that is unanswered.
        writer = cast(asyncio.StreamWriter, connection._writer)
        self._transport = cast(asyncio.Transport, writer.transport)
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._unsent: list[bytes] = []
        self._replies = self._replies_before = 0
        self.is_open = True
        self._transport.set_protocol(self)
        self._watch = self._loop.call_later(TIMEOUT_S, self._check_progress)

    def send(self, packed: bytes) -> asyncio.Future[Any]:
        """Will be the reply to a command: RedisError, ConnectionError or a value.

        Raises ConnectionError at once when the connection is lost or too many wait.
        """
        if not self.is_open or len(self._waiting) >= WAITING_MAX:
            raise ConnectionError("Redis is away or overloaded")
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._waiting:
            self._transport.write(packed)
        else:  # with whatever else is sent before the loop turns: one call of the kernel for all
            if not self._unsent:
                self._loop.call_soon(self._send_together)
            self._unsent.append(packed)
        self._waiting.append(future)
        return future

    def _send_together(self) -> None:
        if self.is_open:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._replies += 1
                future = self._waiting.popleft()
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(reply, hiredis.ReplyError):
                    text = str(reply)
                    kind = ScriptUnknown if text.startswith("NOSCRIPT") else RedisError
                    future.set_exception(kind(text))
                else:
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError):  # not Redis, or more replies than commands
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection; whoever waits gets a ConnectionError."""
        self.is_open = False
        self._watch.cancel()
        self._transport.abort()
        self._connection._close()  # type: ignore[no-untyped-call]  # theirs
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(ConnectionError("the connection to Redis was lost"))

    def _check_progress(self) -> None:
        if self._waiting and self._replies == self._replies_before:
            self.close()
            return
        self._replies_before = self._replies
        self._watch = self._loop.call_later(TIMEOUT_S, self._check_progress)


class RedisPipe:
    """Connects when first used, and again after a loss. Use from one event loop."""

    def __init__(self, url: str) -> None:
        """`url` as redis-py takes it: `redis://[user:password@]host[:port][/db]`, `rediss://`."""
        self._options: dict[str, Any] = dict(parse_url(url))
        self._connection_class: type[Connection] = self._options.pop("connection_class", Connection)
        self._pipeline: _Pipeline | None = None
        self._connecting: asyncio.Task[_Pipeline] | None = None

    async def call(self, *arguments: Argument) -> Any:
        """Send one command. Raises RedisError or ConnectionError."""
        pipeline = self._pipeline
        if pipeline is None or not pipeline.is_open:
            pipeline = await self._connect_once()
        return await pipeline.send(pack(*arguments))

    async def run(self, script: Script, *arguments: Argument) -> Any:
        """Run a script, by its hash when Redis knows it. Raises like `call`."""
        try:
            return await self.call("EVALSHA", script.sha1, 0, *arguments)
        except ScriptUnknown:
            return await self.call("EVAL", script.text, 0, *arguments)

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._pipeline is not None:
            self._pipeline.close()

    async def _connect_once(self) -> _Pipeline:
        """Connect; those who come meanwhile wait for the same attempt."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> _Pipeline:
        connection = self._connection_class(
            **self._options,
            protocol=2,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            # The pipeline watches for progress: a timer for each command would cost more.
            socket_timeout=None,
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]  # theirs
        except ClientError as error:
            raise ConnectionError("Redis is away") from error
        self._pipeline = _Pipeline(connection)
        return self._pipeline
