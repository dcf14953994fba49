"""An answer that is told bit by bit, for as long as there is something to tell."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from common.logging import get_logger

log = get_logger(__name__)


class HoldingResponse(StreamingResponse):
    """A streamed answer that lets go of what it holds, whatever becomes of it.

    A generator's own `finally` is not enough: somebody who goes away before the first bit leaves a
    generator that was never begun, and that never ends. And who takes nothing more, without going
    away, would keep it waiting: after `seconds_max` the answer is cut.
    """

    def __init__(
        self,
        content: AsyncIterator[bytes],
        *,
        let_go: Callable[[], Awaitable[None]],
        seconds_max: float,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self.let_go = let_go
        self.seconds_max = seconds_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self.seconds_max):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            log.info("stream_cut", path=scope["path"])
        finally:
            await self.let_go()
