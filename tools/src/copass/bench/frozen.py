"""The tap path alone: an access API on a copy of Redis that nothing else writes or empties.

Two of them, copied at different times, answer the same taps in turns, so that what differs between
their latencies is what differs between the copies, not between two quarters of an hour.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from redis.asyncio import Redis

from copass.bench.taps import BenchError, Target, port_open
from copass.network import Broker, Network, Ports, environment, load_or_make_secrets
from copass.processes import Program, spawn, stop, wait_ready
from copass.servers import start, unused_port, valkey

COPIED_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Frozen:
    """`url`: of the API. `redis_url`: of its copy."""

    url: str
    redis_url: str


@asynccontextmanager
async def frozen_copy(target: Target, name: str) -> AsyncIterator[Frozen]:
    """Copies the Redis of `target` as it is now, and serves taps from the copy."""
    copy = await start(valkey(target.home / f"bench-{name}", unused_port()))
    try:
        await copy_all(target.redis_url, copy.url)
        port = unused_port()
        program = access_api(target, name, copy.url, port)
        process = spawn(program)
        try:
            await wait_ready(program, process, lambda: port_open(port))
            yield Frozen(f"http://127.0.0.1:{port}", copy.url)
        finally:
            await asyncio.to_thread(stop, process, signal.SIGTERM)
    finally:
        await asyncio.to_thread(copy.stop)


def access_api(target: Target, name: str, redis_url: str, port: int) -> Program:
    """The access API as the network runs it, but for its Redis and its port."""
    base = (urlsplit(target.access_url).port or 0) - Ports(0).api("access")
    network = Network(target.home, base, Broker.tansu)
    return Program(
        f"access-{name}",
        (sys.executable, "-m", "access", "api"),
        target.home / "logs" / f"bench-access-{name}.log",
        environment(network, load_or_make_secrets(target.home), "access")
        | {"ACCESS_REDIS_URL": redis_url, "ACCESS_PORT": str(port)},
        target.home,
    )


async def copy_all(source_url: str, copy_url: str) -> None:
    """Everything in `source_url`, by the servers' own replication. Raises BenchError if slow."""
    source = urlsplit(source_url)
    copy = Redis.from_url(copy_url)
    deadline = time.monotonic() + COPIED_WITHIN_S
    try:
        await copy.replicaof(source.hostname, source.port)
        while (await copy.info("replication"))["master_link_status"] != "up":
            if time.monotonic() > deadline:
                raise BenchError("Redis is not copied in time")
            await asyncio.sleep(0.1)
        await copy.replicaof("NO", "ONE")
        # Nobody renews it here: the copy is never out of date, because nothing happens to it.
        await copy.persist("projection:ready")
    finally:
        await copy.aclose()
