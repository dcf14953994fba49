"""A process is kept running, with real processes that do little."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from copass.processes import Program, StartError
from copass.servers import HOST
from copass.supervised import Part, State, Supervised

SERVE = """
import signal, socket, sys, time
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    server.accept()[0].close()
"""

Make = Callable[..., Supervised]


@pytest.fixture
async def make(tmp_path: Path, unused_port: int) -> AsyncIterator[Make]:
    made: list[Supervised] = []

    async def answers() -> None:
        _, writer = await asyncio.open_connection(HOST, unused_port)
        writer.close()
        await writer.wait_closed()

    def build(code: str = SERVE, kind: str = "kind") -> Supervised:
        command = (sys.executable, "-c", code, str(unused_port), kind)
        program = Program(name="thing", command=command, log=tmp_path / "thing.log")
        words: list[str] = []
        part = Supervised(Part(program, answers), lambda _, said: words.append(said))
        made.append(part)
        return part

    yield build
    for one in made:
        await one.close()


async def until(holds: Callable[[], bool], *, within_s: float = 15) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.02)


async def test_it_is_ready_when_it_answers(make: Make) -> None:
    part = make()
    await part.start(timeout_s=10)
    assert part.state is State.ready
    assert part.pid is not None


async def test_a_killed_process_is_started_again(make: Make) -> None:
    part = make()
    await part.start(timeout_s=10)
    before = part.pid
    part.kill(signal.SIGKILL, stay_down=False)
    await until(lambda: part.state is State.ready and part.pid != before)
    assert part.restarts == 1


async def test_a_process_killed_to_stay_down_waits_for_start(make: Make) -> None:
    part = make()
    await part.start(timeout_s=10)
    part.kill(signal.SIGKILL, stay_down=True)
    await until(lambda: part.state is State.stopped)
    await asyncio.sleep(0.5)
    assert part.pid is None
    await part.start(timeout_s=10)
    assert part.state is State.ready


async def test_one_that_dies_at_once_is_an_error_with_the_end_of_its_log(make: Make) -> None:
    part = make("print('the reason why'); raise SystemExit(9)")
    with pytest.raises(StartError, match=r"(?s)exit code 9.*the reason why"):
        await part.start(timeout_s=10)


async def test_one_that_never_answers_is_an_error_after_the_time(make: Make) -> None:
    part = make("import time; time.sleep(60)")
    with pytest.raises(StartError, match="thing is not ready after 1 s"):
        await part.start(timeout_s=1)


async def test_one_that_ignores_the_signal_is_killed(make: Make) -> None:
    part = make(kind="stubborn")
    await part.start(timeout_s=10)
    await part.stop(timeout_s=0.5)
    assert part.pid is None
    assert part.state is State.stopped


async def test_restart_gives_a_new_process_that_answers(make: Make) -> None:
    part = make()
    await part.start(timeout_s=10)
    before = part.pid
    await part.restart(timeout_s=10)
    assert part.pid not in (None, before)


async def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path, unused_port: int) -> None:
    async def answers() -> None:
        raise AssertionError("never asked")

    program = Program(name="nothing", command=("/no/such/program",), log=tmp_path / "log")
    part = Supervised(Part(program, answers), lambda *_: None)
    try:
        with pytest.raises(StartError, match="nothing cannot be started"):
            await asyncio.wait_for(part.start(timeout_s=5), 10)
    finally:
        await part.close()
