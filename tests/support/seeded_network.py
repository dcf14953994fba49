"""A whole network with the demo data, shared by the tests of a module."""

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "integration" / "stack"))

from copass_command import Copass, copass_in

from copass.control import ask
from copass.demo_check import Stores
from copass.processes import StartError

__all__ = ["Copass", "SeededNetwork", "copass_in", "seeded_network"]

UP_TIMEOUT_S = 600
READY_TIMEOUT_S = 120.0


class SeededNetwork:
    """What a test may ask of it: run a command, look at a process, kill it."""

    def __init__(self, copass: Copass) -> None:
        self.copass = copass
        self.home = copass.home

    @property
    def run(self) -> dict[str, Any]:
        run: dict[str, Any] = json.loads((self.home / "run.json").read_text(encoding="utf-8"))
        return run

    @property
    def stores(self) -> Stores:
        """The superuser reads every service's database."""
        server = self.run["postgres"].rsplit("/", 1)[0]
        databases = {name: f"{server}/{name}" for name in self.run["databases"]}
        return Stores(databases, self.run["redis"])

    def part(self, name: str) -> dict[str, Any]:
        parts = ask(self.home, "status")["parts"]
        return next(dict(part) for part in parts if part["name"] == name)

    def kill(self, name: str) -> int:
        """kill -9; the supervisor starts it again. Returns how often that had happened before."""
        restarts = int(self.part(name)["restarts"])
        ask(self.home, "kill", name=name, signal=9, stay_down=False)
        return restarts

    def kill_and_wait(self, name: str) -> None:
        self.wait_restarted(name, self.kill(name))

    def wait_restarted(self, name: str, restarts: int) -> None:
        """Fails unless it has been started again since, and is ready."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            part = self.part(name)
            if part["restarts"] > restarts and part["state"] == "ready":
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} did not come back: {part}")
            time.sleep(0.1)


@contextlib.contextmanager
def seeded_network(*, seed: bool = True) -> Iterator[SeededNetwork]:
    """`make up` with the demo network (or, sooner, with nothing in it but the administrator), in a
    folder and on ports of its own; then `make down`."""
    home = Path(tempfile.mkdtemp(prefix="copass-network-"))
    try:
        with copass_in(home) as copass:
            up = copass.run("up", "--detach", timeout_s=UP_TIMEOUT_S, SEED=str(int(seed)))
            if up.returncode != 0:
                raise StartError(up.stdout + up.stderr)
            yield SeededNetwork(copass)
            down = copass.run("down")
            assert down.returncode == 0, down.stdout + down.stderr
            copass.nothing_runs()
    finally:
        shutil.rmtree(home, ignore_errors=True)
