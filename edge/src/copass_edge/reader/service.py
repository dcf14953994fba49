"""What this board asks of the access service. Every wait is bounded; a refusal is a value."""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from copass_edge.reader.clock import Clock
from copass_edge.reader.config import Config

CONNECT_S = 2.0
ASK_S = 10.0
KEEP_ALIVE_S = 12.0
SNAPSHOT_S = 120.0
SNAPSHOT_BYTES_MAX = 256 * 1024 * 1024
ANSWER_BYTES_MAX = 4 * 1024 * 1024
BATCH_MAX = 100


class Away(Exception):
    """The service cannot be reached, or cannot answer now."""


class Refused(Exception):
    """The service answered that it will not: `status`, and the `code` of its problem."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail

    @property
    def is_about_reader(self) -> bool:
        """Whether it is this reader that is not wanted, rather than what it said."""
        return self.status in (401, 403, 404)


@dataclass(frozen=True, slots=True)
class TapAnswer:
    """`expires_at`: epoch seconds after which the door is not opened for it any more."""

    decision_id: str
    granted: bool
    reason: str
    unlock_ms: int
    expires_at: float
    message: dict[str, str]


class Service:
    """The access service as a reader sees it."""

    def __init__(
        self, config: Config, clock: Clock, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._config = config
        self._clock = clock
        self._http = httpx.AsyncClient(
            base_url=config.url,
            headers={"authorization": config.authorization, "user-agent": "copass-reader/1"},
            timeout=httpx.Timeout(ASK_S, connect=CONNECT_S),
            transport=transport,
            # A little less than the service, or a proxy before it, keeps a quiet connection open.
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_S),
            trust_env=False,
            follow_redirects=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def tap(self, body: dict[str, Any]) -> TapAnswer:
        """Ask about a live tap; the caller bounds the time. Raises Away, Refused."""
        fields = self._json(await self._ask("POST", "/v1/taps", json=body))
        return read_answer(fields)

    async def send(self, taps: Sequence[dict[str, Any]]) -> list[tuple[str, TapAnswer | Refused]]:
        """Send taps from the log, in their order. Raises Away, Refused for all of them."""
        fields = self._json(
            await self._ask("POST", "/v1/taps/batch", json={"taps": list(taps)}, timeout=60.0)
        )
        items = fields.get("answers")
        if not isinstance(items, list) or len(items) != len(taps):
            raise Away("the answer has another shape")
        found: list[tuple[str, TapAnswer | Refused]] = []
        for tap, item in zip(taps, items, strict=True):
            answer, problem = item.get("answer"), item.get("problem") or {}
            found.append(
                (tap["tap_id"], read_answer(answer) if answer else read_problem(422, problem))
            )
        return found

    async def stored(self, decision_ids: Sequence[str]) -> list[str]:
        """Those of the decisions that are in the history. Raises Away, Refused."""
        body = {"decision_ids": list(decision_ids)}
        fields = self._json(await self._ask("POST", "/v1/taps/stored", json=body))
        return [str(one) for one in fields.get("stored", [])]

    async def report(self, health: dict[str, Any]) -> None:
        """Say how this board is. Raises Away, Refused."""
        await self._ask("PUT", "/v1/readers/self/health", json=health)

    async def whoami(self) -> dict[str, Any]:
        """Reader, doors, and the key that snapshots are signed with. Raises Away, Refused."""
        return self._json(await self._ask("GET", "/v1/readers/self"))

    async def card_key(self, door_id: str, picc_data: str, mac: str) -> tuple[str, str]:
        """Name and sealed key of a card that was just held up. Raises Away, Refused."""
        body = {"type": "ntag424", "picc_data": picc_data, "mac": mac}
        fields = self._json(await self._ask("POST", f"/v1/doors/{door_id}/card-keys", json=body))
        return str(fields.get("credential_hash")), str(fields.get("sealed"))

    async def changes(self, door_id: str, after: int, wait_s: int) -> bytes:
        """The signed paper of what changed. Raises Away, Refused."""
        response = await self._ask(
            "GET",
            f"/v1/doors/{door_id}/changes",
            params={"after": after, "wait_s": wait_s},
            timeout=wait_s + (5.0 if wait_s else 2.0),
        )
        return response.content

    async def snapshot(self, door_id: str, etag: str) -> tuple[bytes, str, float] | None:
        """The snapshot, its ETag, and the seconds until another may be asked for; None when the
        one that this board has stays good. Raises Away, Refused."""
        headers = {"if-none-match": etag} if etag else {}
        response = await self._ask(
            "GET",
            f"/v1/doors/{door_id}/snapshot",
            headers=headers,
            timeout=SNAPSHOT_S,
            bytes_max=SNAPSHOT_BYTES_MAX,
        )
        if response.status_code == 304:
            return None
        return response.content, response.headers.get("etag", ""), max_age(response)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        bytes_max: int = ANSWER_BYTES_MAX,
        timeout: float = ASK_S,  # noqa: ASYNC109 - handed on to httpx
        **request: Any,
    ) -> httpx.Response:
        """A successful answer, read whole. Raises Away, Refused."""
        sent_at = time.monotonic()
        try:
            async with self._http.stream(
                method, path, timeout=httpx.Timeout(timeout, connect=CONNECT_S), **request
            ) as response:
                self._clock.hear(response.headers.get("date"), sent_at, time.monotonic())
                content = bytearray()
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > bytes_max:
                        raise Away("the answer is too large")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Away(f"{type(error).__name__}: {error}") from None
        whole = httpx.Response(
            response.status_code, headers={**response.headers, "content-encoding": "identity"},
            content=bytes(content),
        )  # fmt: skip
        if whole.status_code < 300 or whole.status_code == 304:
            return whole
        try:
            problem = json.loads(whole.content)
        except (ValueError, RecursionError):
            problem = {}
        if whole.status_code >= 500 or whole.status_code in (408, 429) or not problem:
            raise Away(f"the service answered {whole.status_code}")
        raise read_problem(whole.status_code, problem)

    @staticmethod
    def _json(response: httpx.Response) -> dict[str, Any]:
        """Raises Away for what is no JSON object: something else answers at this address."""
        try:
            fields = json.loads(response.content)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise Away("the answer is not JSON")
        return fields


def read_answer(fields: dict[str, Any]) -> TapAnswer:
    """Raises Away for an answer of another shape: nothing is opened for it."""
    try:
        return TapAnswer(
            decision_id=str(fields["decision_id"]),
            granted=fields["decision"] == "grant",
            reason=str(fields["reason"]),
            unlock_ms=int(fields["unlock_ms"]),
            expires_at=datetime.fromisoformat(fields["expires_at"]).timestamp(),
            message=dict(fields["message"]),
        )
    except (KeyError, TypeError, ValueError):
        raise Away("the answer has another shape") from None


def read_problem(status: int, problem: Any) -> Refused:
    fields = problem if isinstance(problem, dict) else {}
    return Refused(
        status, str(fields.get("code", "unknown"))[:60], str(fields.get("detail", ""))[:300]
    )


def max_age(response: httpx.Response) -> float:
    for part in response.headers.get("cache-control", "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "max-age" and value.isdigit():
            return float(value)
    return 60.0


def new_tap_id() -> str:
    return str(uuid.uuid4())


def wire_tap(
    tap_id: str,
    door_id: str,
    credential: dict[str, str],
    direction: str,
    occurred_at: float,
    mode: str,
) -> dict[str, Any]:
    """A tap as the service takes it. The same fields give the same text: by it a tap that is sent
    again is known to be the same."""
    at = datetime.fromtimestamp(round(occurred_at, 3), UTC)
    return {
        "tap_id": tap_id,
        "door_id": door_id,
        "credential": credential,
        "direction": direction,
        "occurred_at": at.isoformat(timespec="milliseconds"),
        "mode": mode,
    }
