"""Asks access about swipes. Whatever goes wrong is a verdict; nothing is raised to an adapter."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx

from copass_edge.gateway.rates import Rate
from copass_edge.gateway.swipes import (
    ANSWER_BYTES_MAX,
    MALFORMED,
    TOO_MANY,
    Point,
    Swipe,
    Swipes,
    Verdict,
    read_answer,
    without_access,
)
from copass_tap.credentials import normalise_uid

# Somebody waits at the door, and some devices give up after a second.
ANSWER_SECONDS_MAX = 0.4
# A replay waits for nobody.
REPLAY_SECONDS_MAX = 5.0
CONNECTIONS_MAX = 32
# What access answers while it cannot decide, and beyond.
AWAY = 500
# Kept in memory only; 30 days is what access takes of the past.
BACKLOG_MAX = 1000
# Connections stay open: a handshake costs more than the answer.
KEEP_ALIVE_S = 300

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Asker:
    """One for the gateway: `http` has the address of access, `rate` counts each device's taps."""

    http: httpx.AsyncClient
    rate: Rate
    swipes: Swipes
    clock: Callable[[], datetime] = utc_now
    new_id: Callable[[], UUID] = uuid4
    monotonic: Callable[[], float] = time.monotonic
    resend_every_s: float = 10.0
    backlog: deque[Swipe] = field(default_factory=lambda: deque(maxlen=BACKLOG_MAX))

    async def ask(self, point: Point, uid_text: str) -> Verdict:
        """May this card pass here now? In 400 ms."""
        uid = normalise_uid(uid_text) if len(uid_text) <= 40 else None
        if uid is None:
            return self.refuse(point, MALFORMED)
        return await self.send(self.swipes.of(point, uid, self.clock(), self.new_id()))

    async def send(self, swipe: Swipe) -> Verdict:
        """The verdict of access about a swipe; of the gateway where there is none."""
        point = swipe.point
        if not self.rate.allows(point.name, self.monotonic()):
            return self.refuse(point, TOO_MANY)
        limit = ANSWER_SECONDS_MAX if swipe.mode == "live" else REPLAY_SECONDS_MAX
        try:
            async with asyncio.timeout(limit):
                status, body = await self._post(swipe)
        except (TimeoutError, httpx.HTTPError) as error:
            status, body = AWAY, b""
            if self.may_tell(point.name):
                log.warning("access_away device=%s error=%s", point.name, type(error).__name__)
        verdict = read_answer(swipe, status, body)
        if status >= AWAY and (swipe.mode == "replay" or verdict.granted):
            self.keep(swipe)
        if verdict.decision_id is None:
            if self.may_tell(point.name):
                log.warning("tap_not_decided device=%s status=%d", point.name, status)
        else:
            log.info(
                "tap_answered device=%s reason=%s decision_id=%s",
                point.name,
                verdict.reason,
                verdict.decision_id,
            )
        return verdict

    def may_tell(self, name: str) -> bool:
        """Whether a line about a device may be written: what happens often is told less often."""
        return self.rate.allows(f"log.{name}", self.monotonic())

    async def resend(self) -> None:
        """Tell access what happened while it was away, oldest first, as taps of the past. Runs
        until cancelled. What it answered and we did not hear has the same tap_id: it is recorded
        once."""
        while True:
            await asyncio.sleep(self.resend_every_s)
            while self.backlog:
                swipe = self.backlog.popleft()
                try:
                    async with asyncio.timeout(REPLAY_SECONDS_MAX):
                        status, _ = await self._post(swipe)
                except (TimeoutError, httpx.HTTPError):
                    status = AWAY
                if status >= AWAY:
                    self.backlog.appendleft(swipe)
                    break
                log.info("tap_sent_late device=%s status=%d", swipe.point.name, status)

    def keep(self, swipe: Swipe) -> None:
        """Keep for later what happened without access: what a device decided by itself, and who
        left. A denial is not kept: access would record that it let in who stayed outside."""
        if len(self.backlog) == self.backlog.maxlen:
            log.error("backlog_full device=%s", swipe.point.name)
        self.backlog.append(replace(swipe, mode="replay"))

    async def _post(self, swipe: Swipe) -> tuple[int, bytes]:
        headers = {"authorization": f"Bearer {swipe.point.reader_key.reveal()}"}
        async with self.http.stream(
            "POST", "/v1/taps", json=swipe.body(), headers=headers
        ) as answer:
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > ANSWER_BYTES_MAX:
                    return 502, b""
            return answer.status_code, body

    def refuse(self, point: Point, reason: str) -> Verdict:
        """A verdict without asking."""
        if self.may_tell(point.name):
            log.warning("tap_refused device=%s reason=%s", point.name, reason)
        return without_access(point.direction, reason)


def client(access_url: str) -> httpx.AsyncClient:
    """To be closed by the caller."""
    return httpx.AsyncClient(
        base_url=access_url.rstrip("/"),
        follow_redirects=False,
        timeout=REPLAY_SECONDS_MAX,
        limits=httpx.Limits(
            max_connections=CONNECTIONS_MAX,
            max_keepalive_connections=CONNECTIONS_MAX,
            keepalive_expiry=KEEP_ALIVE_S,
        ),
    )
