"""Hold one server for as long as another process lives: `python -m copass.hold KIND FOLDER PID`.

Test processes share servers through it. The server's url is written to FOLDER/url when it
answers; a failure to start is written to FOLDER/error. SIGTERM, or the end of process PID in
whatever way, stops the server.
"""

import asyncio
import contextlib
import os
import select
import shutil
import signal
import sys
from pathlib import Path

from copass.servers import UNSAFE_FAST, Server, postgres, start, tansu, unused_port, valkey


def _server(kind: str, folder: Path) -> Server:
    port = unused_port()
    match kind:
        case "postgres":
            return postgres(folder, port, "postgres", settings=UNSAFE_FAST)
        case "valkey":
            return valkey(folder, port)
        case "tansu":
            return tansu(folder, port)
        case "apache":
            from copass.kafka import apache

            return apache(folder, port)
        case _:
            raise SystemExit(f"no server called {kind}")


async def _hold(kind: str, folder: Path, owner_fd: int) -> bool:
    """Whether the owner ended without asking us to."""
    running = await start(_server(kind, folder), timeout_s=60)
    try:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        loop.add_reader(owner_fd, ended.set)
        written = folder / "url.writing"
        written.write_text(running.url)
        written.rename(folder / "url")
        await ended.wait()
        return bool(select.select([owner_fd], [], [], 0)[0])
    finally:
        running.stop(timeout_s=5)


def main() -> None:
    kind, folder, owner = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    try:
        abandoned = asyncio.run(_hold(kind, folder, os.pidfd_open(owner)))
    except Exception as error:
        (folder / "error").write_text(str(error) or repr(error))
        raise
    if abandoned:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # the last one removes the folder of the run
            folder.parent.rmdir()


if __name__ == "__main__":
    main()
