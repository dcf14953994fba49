"""A worker keeps its tasks running, says whether it is ready, and stops when told."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

PROGRAM = """
import asyncio, sys
sys.path.insert(0, {folder!r})
import plumbing
from common.worker import run_worker

calls = 0

async def flaky():
    global calls
    calls += 1
    if calls < 3:
        raise RuntimeError("once more")
    await asyncio.sleep(3600)

async def ready():
    return [] if calls >= 3 else ["flaky"]

settings = plumbing.settings(
    "postgresql://unused", "unused", "", idempotent=False, wait_ms=10
).model_copy(update={{"worker_port": {port}}})
asyncio.run(run_worker(settings, tasks={{"flaky": flaky}}, ready=ready))
"""


@asynccontextmanager
async def worker(port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    program = PROGRAM.format(folder=str(Path(__file__).parent), port=port)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.DEVNULL, env=dict(os.environ)
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_failed_task_is_restarted_and_sigterm_ends_the_process(unused_port: int) -> None:
    async with worker(unused_port) as process, httpx.AsyncClient() as client:
        async with asyncio.timeout(20):
            while True:
                try:
                    answer = await client.get(f"http://127.0.0.1:{unused_port}/readyz")
                    if answer.status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0


async def test_a_taken_health_port_ends_the_process_with_an_error(unused_port: int) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", unused_port)
    async with server, worker(unused_port) as process:
        async with asyncio.timeout(20):
            assert await process.wait() != 0
