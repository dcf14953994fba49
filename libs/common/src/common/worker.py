"""A worker process: tasks that run for ever, each restarted with back-off when it fails."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping

import uvicorn
from fastapi import FastAPI

from common.logging import get_logger
from common.settings import ServiceSettings
from common.web import health_router

Task = Callable[[], Awaitable[None]]

RESTART_FIRST_S = 0.1
RESTART_MAX_S = 5.0
HEALTHY_AFTER_S = 30.0
STOP_S = 8.0

log = get_logger(__name__)


async def keep_running(name: str, task: Task) -> None:
    """Run a task again whenever it ends or fails, waiting longer each time, up to 5 s."""
    loop = asyncio.get_running_loop()
    pause = RESTART_FIRST_S
    while True:
        started = loop.time()
        try:
            await task()
            log.warning("task_ended", task=name)
        except Exception as error:
            log.warning("task_failed", task=name, error=f"{type(error).__name__}: {error}")
        if loop.time() - started > HEALTHY_AFTER_S:
            pause = RESTART_FIRST_S
        await asyncio.sleep(pause)
        pause = min(pause * 2, RESTART_MAX_S)


async def run_worker(
    settings: ServiceSettings,
    *,
    tasks: Mapping[str, Task],
    ready: Callable[[], Awaitable[list[str]]],
) -> None:
    """Run the tasks until SIGTERM or SIGINT, with health and metrics on `worker_port`.

    Raises OSError when the port is taken.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(health_router(ready))
    config = uvicorn.Config(
        app, host=settings.host, port=settings.worker_port, log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    running = [
        asyncio.create_task(keep_running(name, task), name=name) for name, task in tasks.items()
    ]
    # uvicorn takes the signals while it serves and ends its loop at the first of them.
    health = asyncio.create_task(server.serve(), name="health")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait({waiting, health}, return_when=asyncio.FIRST_COMPLETED)
    log.info("worker_stopping")
    waiting.cancel()
    server.should_exit = True
    for task in running:
        task.cancel()
    await asyncio.wait([*running, health], timeout=STOP_S)
    log.info("worker_stopped")
