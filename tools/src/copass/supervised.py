"""One process kept running: started, asked whether it is ready, started again when it dies."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from copass.processes import Process, Program, StartError, end_of_log, spawn

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
STEADY_AFTER_S = 30.0  # a process that lived so long begins with the first pause again
STOP_TIMEOUT_S = 12.0  # the services stop within 10

Check = Callable[[], Awaitable[None]]


class State(StrEnum):
    starting = "starting"
    ready = "ready"
    waiting = "waiting to restart"
    stopped = "stopped"


@dataclass(frozen=True, slots=True)
class Part:
    """What to keep running. `prepare` runs before each start, in a thread; `answers` is a request
    that raises until the process is ready."""

    program: Program
    answers: Check
    prepare: Callable[[], None] = lambda: None

    @property
    def name(self) -> str:
        return self.program.name


async def exited(pid: int) -> None:
    """Return when the process has ended (it is still to be reaped)."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(descriptor, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


class Supervised:
    """`changed` is called after each change of state, with what happened in words."""

    def __init__(
        self,
        part: Part,
        changed: Callable[["Supervised", str], None],
        launch: Callable[[Program], Process] = spawn,
    ) -> None:
        self.part = part
        self._launch = launch
        self.state = State.stopped
        self.pid: int | None = None
        self.restarts = 0
        self._changed = changed
        self._wanted = asyncio.Event()
        self._ready = asyncio.Event()
        self._failed: asyncio.Future[StartError] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.part.name

    async def start(self, *, timeout_s: float) -> None:
        """Start it and wait until it is ready. Raises StartError when it dies first, or on time."""
        self._failed = asyncio.get_running_loop().create_future()
        self._wanted.set()
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name=self.name)
        ready = asyncio.create_task(self._ready.wait())
        failed = self._failed
        waited: set[asyncio.Future[Any]] = {ready, failed}
        try:
            await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                raise failed.result()
            if not ready.done():
                raise StartError(
                    f"{self.name} is not ready after {timeout_s:.0f} s: {await self._complaint()}; "
                    f"see {self.part.program.log}"
                )
        finally:
            ready.cancel()
            self._failed = None

    async def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop it, in order or by SIGKILL after the time; it stays down."""
        self._wanted.clear()
        await self._end_process(self.part.program.stop_signal, timeout_s)
        if self.state is State.waiting:
            self._enter(State.stopped, "stopped")

    async def restart(self, *, timeout_s: float) -> None:
        """Stop and start it. Raises StartError like `start`."""
        await self.stop()
        self.restarts += 1
        await self.start(timeout_s=timeout_s)

    async def close(self) -> None:
        """Stop it for good."""
        await self.stop()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def kill(self, number: signal.Signals, *, stay_down: bool) -> None:
        """Send a signal. It is started again when it dies, unless it is to stay down."""
        if self.pid is None:
            raise StartError(f"{self.name} does not run")
        if stay_down:
            self._wanted.clear()
        os.kill(self.pid, number)

    async def _end_process(self, number: signal.Signals, timeout_s: float) -> None:
        pid = self.pid
        if pid is None:
            return
        os.kill(pid, number)
        try:
            async with asyncio.timeout(timeout_s):
                await exited(pid)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            await exited(pid)
        while self.pid == pid:  # until the keeper has reaped it
            await asyncio.sleep(0.01)

    async def _keep(self) -> None:
        pause_s = BACKOFF_FIRST_S
        while True:
            await self._wanted.wait()
            started = time.monotonic()
            try:
                why = await self._run_once()
            except StartError as error:
                why = str(error)
                self._fail(error)
            if not self._wanted.is_set():
                self._enter(State.stopped, why)
                continue
            if time.monotonic() - started > STEADY_AFTER_S:
                pause_s = BACKOFF_FIRST_S
            self._enter(State.waiting, f"{why}; starting again in {pause_s:.1f} s")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, BACKOFF_MAX_S)
            if self._wanted.is_set():
                self.restarts += 1
            elif self.state is not State.stopped:
                self._enter(State.stopped, "stopped")

    async def _run_once(self) -> str:
        """From the start to the end of the process: how it ended."""
        self._enter(State.starting, "starting")
        try:
            await asyncio.to_thread(self.part.prepare)
        except OSError as error:
            raise StartError(f"{self.name} cannot be prepared: {error}") from error
        if not self._wanted.is_set():
            return "stopped before it started"
        process = self._launch(self.part.program)
        self.pid = process.pid
        self._enter(State.starting, f"started, pid {process.pid}")
        readiness = asyncio.create_task(self._until_ready())
        try:
            await exited(process.pid)
        except BaseException:
            process.kill()
            raise
        finally:
            readiness.cancel()
            code = process.wait()  # at once: it has ended
            was_ready = self._ready.is_set()
            self._ready.clear()
            self.pid = None
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if self._wanted.is_set() and not was_ready:
            raise StartError(
                f"{self.name} stopped while starting ({how})\n{end_of_log(self.part.program.log)}"
            )
        return f"ended ({how})"

    async def _until_ready(self) -> None:
        pause_s = 0.05
        while await self._complaint():
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.3, 0.5)
        self._ready.set()
        self._enter(State.ready, "ready")

    async def _complaint(self) -> str:
        """Why it is not ready; empty when it is."""
        try:
            async with asyncio.timeout(5):
                await self.part.answers()
        except Exception as error:
            return str(error) or repr(error)
        return ""

    def _fail(self, error: StartError) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(error)

    def _enter(self, state: State, words: str) -> None:
        self.state = state
        self._changed(self, words)
