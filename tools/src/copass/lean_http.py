"""HTTP/1.1 over kept connections, for a program that sends thousands of small requests.

It does for the APIs of this network what a full client does, at a tenth of its cost, so that the
program that measures or fills the network does not take the processor from it. No TLS, no proxies,
no redirects, no chunked answers: the services send none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

HEAD_BYTES_MAX = 32 * 1024
BODY_BYTES_MAX = 8 * 1024 * 1024


class BrokenConnection(ConnectionError):
    """The answer did not come, or not whole."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class LeanClient:
    """Connections to any number of servers, each kept for the next request to the same one."""

    def __init__(self, *, connections_max: int, timeout_s: float) -> None:
        self._slots = asyncio.Semaphore(connections_max)
        self._timeout_s = timeout_s
        self._idle: dict[tuple[str, int], list[Connection]] = {}

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Answer:
        """Raises OSError (BrokenConnection too) or TimeoutError; the request may have been done."""
        parts = urlsplit(url)
        place = (parts.hostname or "", parts.port or 80)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        message = "\r\n".join(lines).encode() + body
        async with self._slots, asyncio.timeout(self._timeout_s):
            idle = self._idle.setdefault(place, [])
            while idle:
                # The server may have closed it meanwhile; then another one is as good.
                connection = idle.pop()
                if connection[0].at_eof() or connection[1].is_closing():
                    connection[1].close()
                    continue
                return await self._exchange(connection, message, idle)
            connection = await asyncio.open_connection(*place, limit=HEAD_BYTES_MAX)
            return await self._exchange(connection, message, idle)

    async def _exchange(
        self, connection: Connection, message: bytes, idle: list[Connection]
    ) -> Answer:
        reader, writer = connection
        try:
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            status, length, keeps = read_head(head)
            body = await reader.readexactly(length) if length else b""
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            writer.close()
            raise BrokenConnection(f"no whole answer: {error}") from error
        except BaseException:
            writer.close()
            raise
        if keeps:
            idle.append(connection)
        else:
            writer.close()
        return Answer(status, body)

    async def close(self) -> None:
        """Closes what is idle; to be called when nothing is under way."""
        for connections in self._idle.values():
            for _reader, writer in connections:
                writer.close()
            for _reader, writer in connections:
                try:
                    await writer.wait_closed()
                except OSError:
                    continue
        self._idle.clear()


def read_head(head: bytes) -> tuple[int, int, bool]:
    """Status, length of the body, and whether the connection stays. Raises ValueError."""
    first, *lines = head[:-4].split(b"\r\n")
    version, status, *_ = first.split(b" ", 2)
    if version != b"HTTP/1.1":
        raise ValueError(f"not an HTTP/1.1 answer: {first[:40]!r}")
    fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    if b"transfer-encoding" in fields:
        raise ValueError("a chunked answer")
    length = int(fields.get(b"content-length", b"0"))
    if not 0 <= length <= BODY_BYTES_MAX:
        raise ValueError(f"an answer of {length} bytes")
    return int(status), length, fields.get(b"connection", b"").lower() != b"close"
