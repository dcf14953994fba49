"""uvicorn's HTTP protocol, with the head and the body of an answer in one write.

uvicorn hands over the two one after the other, and uvloop calls the kernel for each. On a small
answer that is a good part of all the work (docs/performance.md, "Taps").
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class JoiningTransport:
    """Holds a first write until the second, or until the event loop's next turn, and joins them."""

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._held:
            self._transport.write(self._held + data)
            self._held = b""
        elif data:
            self._held = data
            self._loop.call_soon(self._write_held)

    def close(self) -> None:
        self._write_held()
        self._transport.close()

    def _write_held(self) -> None:
        if self._held:
            self._transport.write(self._held)
            self._held = b""


class JoiningHttp(HttpToolsProtocol):
    """For `uvicorn.run(http=…)`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        joining = JoiningTransport(cast(asyncio.Transport, transport))
        super().connection_made(cast(asyncio.Transport, joining))
