"""Files that a crash left behind do not keep PostgreSQL or the network from starting."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from copass import servers
from copass.processes import StartError

pytestmark = pytest.mark.faults


async def select_one(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT 1"))
    finally:
        await connection.close()


async def test_a_half_made_data_folder_is_made_again(
    start_server, server_folder: Path, unused_port: int
) -> None:
    making = server_folder / "data.making"
    (making / "base").mkdir(parents=True)
    (making / "PG_VERSION").write_text("18\n")
    running = await start_server(servers.postgres(server_folder, unused_port, "secret"))
    assert await select_one(running.url) == 1
    assert not making.exists()


async def test_a_folder_that_is_no_data_folder_is_left_alone(
    start_server, server_folder: Path, unused_port: int
) -> None:
    (server_folder / "data").mkdir()
    (server_folder / "data" / "thesis.odt").write_text("mine")
    with pytest.raises(StartError, match="no PostgreSQL data folder; move it away"):
        await start_server(servers.postgres(server_folder, unused_port, "secret"))
    assert (server_folder / "data" / "thesis.odt").read_text() == "mine"


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


async def test_a_lock_that_names_another_program_is_removed_and_that_program_lives(
    start_server, server_folder: Path, unused_port: int, sleeper: "subprocess.Popen[bytes]"
) -> None:
    """After a reboot the pid of the server belongs to somebody else."""
    running = await start_server(servers.postgres(server_folder, unused_port, "secret"))
    running.stop()
    lock = server_folder / "data" / "postmaster.pid"
    lock.write_text(f"{sleeper.pid}\n{server_folder}/data\n1\n{unused_port}\n\n127.0.0.1\n")
    await running.start()
    assert await select_one(running.url) == 1
    assert sleeper.poll() is None


async def test_a_lock_of_a_dead_process_or_of_nothing_readable_is_removed(
    start_server, server_folder: Path, unused_port: int
) -> None:
    running = await start_server(servers.postgres(server_folder, unused_port, "secret"))
    for text in ("", "not a number\n", f"{2**22 - 1}\n"):
        running.stop()
        (server_folder / "data" / "postmaster.pid").write_text(text)
        await running.start()
        assert await select_one(running.url) == 1


async def test_a_server_that_lost_its_starter_is_replaced(
    start_server, server_folder: Path, unused_port: int
) -> None:
    server = servers.postgres(server_folder, unused_port, "secret")
    first = await start_server(server)
    second = await start_server(server)
    assert first.process.poll() is not None
    assert await select_one(second.url) == 1


async def test_valkey_starts_with_a_log_that_was_cut_off(
    start_server, server_folder: Path, unused_port: int
) -> None:
    running = await start_server(servers.valkey(server_folder, unused_port))
    running.stop()
    (log,) = (server_folder / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nhal")
    await running.start()
