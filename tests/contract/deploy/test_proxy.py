"""The proxy's configuration, checked and run by a real HAProxy where there is one."""

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[3]
HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")

pytestmark = pytest.mark.skipif(
    HAPROXY is None, reason="haproxy is not installed (apt-get install haproxy)"
)


def unused_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A service that answers 200 with the request's first line and headers."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            await reader.readexactly(int(length.group(1)) if length else 0)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))
            await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def run(config: Path) -> subprocess.Popen[bytes]:
    with config.with_suffix(".log").open("wb") as log:
        return subprocess.Popen([str(HAPROXY), "-W", "-f", str(config)], stdout=log, stderr=log)


@pytest.fixture
async def ports(tmp_path: Path) -> AsyncIterator[dict[str, int]]:
    """The proxy with its own configuration, other ports, and `echo` behind every name."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.ensure_future(echo(reader, writer)))

    service = await asyncio.start_server(connected, "127.0.0.1", 0)
    behind = service.sockets[0].getsockname()[1]
    text = (ROOT / "deploy/proxy/haproxy.cfg").read_text("utf-8")
    names = re.findall(r"^frontend (\w+)$", text, re.MULTILINE)
    chosen = dict(zip(names, unused_ports(len(names)), strict=True))
    for name, port in chosen.items():
        text = re.sub(rf"(frontend {name}\n    bind) :\d+", rf"\1 127.0.0.1:{port}", text)
    text = re.sub(r"(server \w+) \w+:\d+", rf"\1 127.0.0.1:{behind}", text)
    config = tmp_path / "haproxy.cfg"
    config.write_text(text, "utf-8")
    proxy = run(config)
    try:
        async with httpx.AsyncClient() as http:
            for _ in range(200):
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get(f"http://127.0.0.1:{chosen['status']}/livez")).is_success:
                        break
                await asyncio.sleep(0.05)
        yield chosen
    finally:
        proxy.terminate()
        await asyncio.to_thread(proxy.wait, 10)
        service.close()
        await asyncio.wait_for(asyncio.gather(*connections), 10)


def test_the_configuration_is_valid() -> None:
    config = str(ROOT / "deploy/proxy/haproxy.cfg")
    done = subprocess.run(
        [str(HAPROXY), "-c", "-f", config], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    # Outside the network of the containers the names are unknown, and that is all there is to say.
    warnings = [line for line in done.stderr.splitlines() if "[WARNING]" in line]
    assert all("could not resolve address" in line for line in warnings), warnings


async def test_the_outside_reaches_what_is_published_and_nothing_else(
    ports: dict[str, int],
) -> None:
    async with httpx.AsyncClient() as http:
        for name, path, status in (
            ("access", "/v1/taps", 200),
            ("identity", "/.well-known/jwks.json", 200),
            ("portal", "/places", 200),
            ("portal", "/metrics", 404),
            *((name, "/metrics", 404) for name in ("identity", "timebank", "access", "places")),
            ("access", "/docs", 404),
            ("access", "/readyz", 404),
        ):
            answer = await http.get(f"http://127.0.0.1:{ports[name]}{path}")
            assert answer.status_code == status, f"{name}{path}"


async def test_a_client_cannot_say_that_it_is_somebody_else(ports: dict[str, int]) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.get(
            f"http://127.0.0.1:{ports['identity']}/v1/cities",
            headers={"X-Forwarded-For": "10.9.8.7"},
        )
    assert "10.9.8.7" not in answer.text
    assert "x-forwarded-for: 127.0.0.1" in answer.text.lower()


async def test_a_body_beyond_the_limit_is_refused_by_its_announcement(
    ports: dict[str, int],
) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"http://127.0.0.1:{ports['places']}/v1/places", content=b"x" * 1_200_000
        )
    assert answer.status_code == 413


async def test_a_slow_client_is_sent_away(ports: dict[str, int]) -> None:
    starts = (
        b"GET /v1/taps HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        b"POST /v1/taps HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{",
    )
    for answer, waited_s in await asyncio.gather(*(drip(ports["access"], one) for one in starts)):
        assert b" 408 " in answer.partition(b"\r\n")[0]
        assert waited_s < 10


async def drip(port: int, start: bytes) -> tuple[bytes, float]:
    """Sends two bytes a second, in the head of a request or in its body; what is answered, and
    after how many seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    writer.write(start)
    answer = b""
    with contextlib.suppress(ConnectionError):
        while not answer and time.monotonic() - began < 12:
            with contextlib.suppress(TimeoutError):
                answer = await asyncio.wait_for(reader.read(200), 0.5)
                if not answer:
                    break
            writer.write(b"a")
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer, time.monotonic() - began
