"""Real servers for the tests.

One PostgreSQL and one Kafka broker serve the whole run, whatever the number of pytest workers;
each worker has a Valkey of its own, so that a test may flush it. They start when first asked for,
and end with the run, also when pytest is killed: `copass.hold` watches the pytest process.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import psutil
import pytest
from hypothesis.internal.conjecture import providers

from copass import servers

sys.path.insert(0, str(Path(__file__).parent / "support"))

from routes_once import analyse_routes_once

HOME = "COPASS_TEST_HOME"
OWNER = "COPASS_TEST_OWNER"
# Hypothesis likes to try the numbers that stand in the modules loaded so far. A run that is meant
# to be the same each time would then depend on which tests ran before it in the same process.
providers._get_local_constants = lambda: providers._local_constants
MEMORY_FREE_MIN = 8 * 1024**3

MakeDatabase = Callable[[str, Path], Awaitable[str]]
StartServer = Callable[[servers.Server], Awaitable[servers.Running]]


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--only-kafka", action="store_true", help="Run only the tests that use the broker."
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--only-kafka"):
        uses = [i for i in items if "kafka_bootstrap" in getattr(i, "fixturenames", ())]
        config.hook.pytest_deselected(items=[i for i in items if i not in set(uses)])
        items[:] = uses


def _memory() -> str | None:
    """A folder in memory, where there is one with room: databases come and go there in half the
    time. None: wherever temporary files go."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shutil.disk_usage(shared).free < MEMORY_FREE_MIN:
        return None
    return str(shared)


def pytest_configure(config: pytest.Config) -> None:
    if not _is_worker(config):  # xdist's workers inherit both
        os.environ[HOME] = tempfile.mkdtemp(prefix="copass-tests-", dir=_memory())
        os.environ[OWNER] = str(os.getpid())


def pytest_unconfigure(config: pytest.Config) -> None:
    if _is_worker(config):
        return
    home = Path(os.environ.pop(HOME))
    holders = []
    for file in home.glob("*/pid"):
        with contextlib.suppress(psutil.NoSuchProcess):
            holder = psutil.Process(int(file.read_text()))
            if "copass.hold" in holder.cmdline():
                holder.send_signal(signal.SIGTERM)
                holders.append(holder)
    for holder in psutil.wait_procs(holders, timeout=15)[1]:
        holder.kill()
    shutil.rmtree(home, ignore_errors=True)


def _held(kind: str, name: str) -> str:
    """The url of a server shared by everybody who asks for `name`; started by the first."""
    folder = Path(os.environ[HOME]) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "pid").exists():
            log = os.open(folder / "hold.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-m", "copass.hold", kind, str(folder), os.environ[OWNER]],
                os.environ,
                # A holder outlives the worker that started it, and stops after the last test.
                setsid=True,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
            )
            os.close(log)
            (folder / "pid").write_text(str(pid))
        deadline = time.monotonic() + 90
        while not (folder / "url").exists():
            if (folder / "error").exists():
                pytest.fail((folder / "error").read_text(), pytrace=False)
            if time.monotonic() > deadline:
                pytest.fail(f"{name} did not start: see {folder}", pytrace=False)
            time.sleep(0.02)
    return (folder / "url").read_text()


@pytest.fixture(scope="session", autouse=True)
def _routes_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        analyse_routes_once(patch)
        yield


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """The superuser's address of a real PostgreSQL (fsync off). Roles are shared: name them so."""
    return _held("postgres", "postgres")


@pytest.fixture(scope="session")
def kafka_bootstrap() -> str:
    """`host:port` of a broker: Tansu, or Apache Kafka when the environment says KAFKA=apache."""
    return _held("apache" if os.environ.get("KAFKA") == "apache" else "tansu", "kafka")


@pytest.fixture(scope="session")
def kafka_idempotent() -> bool:
    """What `…_KAFKA_IDEMPOTENT` is for this broker."""
    return os.environ.get("KAFKA") == "apache"


@pytest.fixture(scope="session")
def kafka_fetch_wait_ms() -> int:
    """What `…_KAFKA_FETCH_WAIT_MS` is for this broker."""
    return 500 if os.environ.get("KAFKA") == "apache" else 10


@pytest.fixture
def topic_prefix() -> str:
    """Unique to the test: `…_KAFKA_TOPIC_PREFIX`, before every topic and group name."""
    return f"t{uuid4().hex[:10]}."


@pytest.fixture
def unused_port() -> int:
    return servers.unused_port()


@pytest.fixture
async def redis_url() -> str:
    """A real Valkey, empty, that no other test uses meanwhile."""
    url = _held("valkey", f"valkey-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}")
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    try:
        writer.write(b"FLUSHALL\r\nSCRIPT FLUSH\r\n")
        assert [await reader.readline(), await reader.readline()] == [b"+OK\r\n"] * 2
    finally:
        writer.close()
        await writer.wait_closed()
    return url


def _digest(folder: Path) -> str:
    digest = hashlib.sha256(str(folder).encode())
    for file in sorted(folder.glob("*.sql")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]


@pytest.fixture
async def make_database(postgres_url: str) -> AsyncIterator[MakeDatabase]:
    """`await make_database(service, migrations_folder)` → address of a fresh, migrated database.

    The migrations run once per run and state of the folder; every test gets a clone.
    """
    admin = await asyncpg.connect(postgres_url)
    made: list[str] = []
    base = postgres_url.rsplit("/", 1)[0]

    async def template(service: str, folder: Path) -> str:
        name = f"template_{service}_{_digest(folder)}"
        # Serialises the workers; the template is renamed into place, so it is whole or absent.
        await admin.execute("SELECT pg_advisory_lock(hashtext($1))", name)
        try:
            if not await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
                from common.migrate import migrate

                making = f"making_{uuid4().hex[:12]}"
                await admin.execute(f"CREATE DATABASE {making}")
                await migrate(f"{base}/{making}", service, folder)
                await admin.execute(f"ALTER DATABASE {making} RENAME TO {name}")
        finally:
            await admin.execute("SELECT pg_advisory_unlock(hashtext($1))", name)
        return name

    async def make(service: str, folder: Path) -> str:
        source = await template(service, folder)
        name = f"test_{service}_{uuid4().hex[:12]}"
        # Without fsync, copying the files takes a third of the time that logging each page does.
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {source} STRATEGY file_copy")
        made.append(name)
        return f"{base}/{name}"

    try:
        yield make
        for name in made:
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """An empty folder for a server's data (below /tmp: pytest's own is too deep for sockets)."""
    folder = Path(tempfile.mkdtemp(prefix="copass-server-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Start a server of the test's own, to be killed or restarted at will.

    `await start_server(servers.tansu(server_folder, unused_port))` → Running with `url`, `kill()`,
    `stop()`, `await start()`. A `servers.postgres(…)` started so has fsync on.
    """
    started: list[servers.Running] = []

    async def begin(server: servers.Server) -> servers.Running:
        running = await servers.start(server, timeout_s=60)
        started.append(running)
        return running

    yield begin
    for running in started:
        running.kill()
