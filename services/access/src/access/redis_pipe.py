"""One connection to Redis that all requests of a process share.

Commands are written as they come and answered in order, so concurrent taps travel together and
nobody waits for a free connection. The connection is redis-py's; its client around it, made for
one command at a time, costs a tap three times as much (docs/decisions/access-tap-path.md).
Every wait is bounded: a server that says nothing for `TIMEOUT_S` loses the connection, and all who
waited get a ConnectionError. Whether their command was done is then unknown.
"""

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiredis
from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import NoScriptError, ResponseError
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


class _Pipeline:
    """Writes packed commands, and hands each reply to the future at the head of the queue."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._replies = self._replies_before = 0
        self._reading = asyncio.create_task(self._read())
        self._watch = self._loop.call_later(TIMEOUT_S, self._check_progress)

    @property
    def is_open(self) -> bool:
        return not self._reading.done()

    async def send(self, packed: bytes) -> Any:
        """The reply to a command. Raises RedisError, ConnectionError."""
        if not self.is_open or len(self._waiting) >= WAITING_MAX:
            raise ConnectionError("Redis is away or overloaded")
        future: asyncio.Future[Any] = self._loop.create_future()
        # In the same step as the write begins: replies come in the order of the commands.
        self._waiting.append(future)
        try:
            await self._connection.send_packed_command(packed, check_health=False)
        except ClientError as error:
            await self.close()
            raise ConnectionError("the connection to Redis was lost") from error
        except asyncio.CancelledError:
            # The command may be written in part: nothing after it could be understood.
            await self.close()
            raise
        return await future

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while True:
                try:
                    reply: Any = await self._connection.read_response(disable_decoding=True)
                except NoScriptError as error:
                    reply = ScriptUnknown(str(error))
                except ResponseError as error:
                    reply = RedisError(str(error))
                self._replies += 1
                future = self._waiting.popleft()
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(reply, Exception):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except (ClientError, OSError):
            return
        finally:
            self._watch.cancel()
            await self._connection.disconnect(nowait=True)
            while self._waiting:
                future = self._waiting.popleft()
                if not future.done():
                    future.set_exception(ConnectionError("the connection to Redis was lost"))

    def _check_progress(self) -> None:
        if self._waiting and self._replies == self._replies_before:
            self._reading.cancel()
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
            await self._pipeline.close()

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
