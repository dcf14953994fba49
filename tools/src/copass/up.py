"""`python -m copass up`: start the supervisor, show its progress, tell what can be done next."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.status import Status
from rich.table import Table

from copass.checks import rotate_log
from copass.control import read_run_file, runs
from copass.network import Network, disk_error
from copass.processes import StartError, log_tail, unprivileged_identity
from copass.supervisor import ALREADY_RUNS

START_TIMEOUT_S = 900.0
STOP_TIMEOUT_S = 60.0


def make_home(home: Path) -> None:
    """The state folder. Raises StartError when it cannot be ours."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / "logs").mkdir(exist_ok=True)
        rotate_log(home / "logs" / "supervisor.log")
        owner = home.stat().st_uid
        identity = unprivileged_identity()
        if owner == 0 and identity is not None and not identity.namespace:
            home.chmod(0o711)  # that user must get through it to PostgreSQL's folder
    except OSError as error:
        raise disk_error(error, home) from error
    if owner != os.geteuid():
        raise StartError(
            f"{home} belongs to user {owner}, and we are user {os.geteuid()}: "
            "run as that user, or set COPASS_HOME to another folder"
        )


class Client:
    """This end of the socket to a supervisor that this process started."""

    def __init__(self, network: Network, *, seed: bool) -> None:
        ours, theirs = socket.socketpair()
        log = (network.home / "logs" / "supervisor.log").open("ab")
        with theirs, log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "copass.supervisor", str(theirs.fileno())),
                    *(str(network.home), str(network.port_base), network.broker),
                    "1" if seed else "0",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.socket = ours

    def events(self) -> Iterator[dict[str, Any]]:
        """What the supervisor tells, until it ends."""
        with self.socket.makefile(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    def detach(self) -> None:
        """Leave it running without us."""
        self.socket.sendall(b"detach\n")
        self.socket.close()

    def stop(self) -> int:
        """Ask it to stop and wait, at most STOP_TIMEOUT_S; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()  # what it runs dies with it
            return self.process.wait()


class Display:
    """Progress: one line that changes on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()
        self.step = ""
        self.pending: set[str] = set()
        self.status: Status | None = None
        if console.is_terminal:
            self.status = console.status("starting")
            self.status.start()

    def show(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "step":
                self.step = event["words"]
                self.say(f"{self.step} …")
            case "part":
                name, state = event["name"], event["state"]
                if state == "ready":
                    self.pending.discard(name)
                    self.say(f"  [green]✓[/green] {name}")
                elif state == "starting":
                    self.pending.add(name)
                else:
                    self.say(f"  [yellow]![/yellow] {name}: {event['words']}")
            case "done":
                self.say(f"  [green]✓[/green] {event['name']} ({event['seconds']} s)")
        if self.status is not None:
            waiting = f": {', '.join(sorted(self.pending))}" if self.pending else ""
            self.status.update(f"{self.step}{waiting}")

    def say(self, words: str) -> None:
        elapsed = time.monotonic() - self.started
        self.console.print(f"[dim]{elapsed:5.1f} s[/dim] {words}", highlight=False)

    def end(self) -> None:
        if self.status is not None:
            self.status.stop()


@contextlib.contextmanager
def terminating_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP as KeyboardInterrupt, so that they too stop what was started."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {one: signal.signal(one, interrupt) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def up(network: Network, console: Console, *, detach: bool, seed: bool) -> int:
    """Start the network; the exit code. Without `detach` it runs until Ctrl-C.

    Raises StartError when it cannot start; then nothing is left running.
    """
    make_home(network.home)
    if runs(network.home):
        return _already(network.home, console)
    client = Client(network, seed=seed)
    display = Display(console)
    try:
        with terminating_signals():
            return _follow(network, client, display, console, detach=detach)
    except KeyboardInterrupt:
        display.end()
        console.print("stopping …")
        client.stop()
        console.print("stopped")
        return 130
    finally:
        display.end()


def _follow(
    network: Network, client: Client, display: Display, console: Console, *, detach: bool
) -> int:
    for event in client.events():
        display.show(event)
        if event["event"] == "failed":
            display.end()
            client.stop()
            raise StartError(event["reason"])
        if event["event"] == "ready":
            display.end()
            display.say("[bold green]ready[/bold green]")
            if detach:
                client.detach()
                show_network(network.home, console)
                return 0
            show_network(network.home, console)
            console.print("Ctrl-C stops it. `make logs` in another terminal shows what happens.")
    code = client.process.wait(STOP_TIMEOUT_S)
    if code == ALREADY_RUNS:
        return _already(network.home, console)
    if code != 0:
        raise StartError(
            f"the supervisor ended (exit code {code}):\n"
            + log_tail(network.home / "logs" / "supervisor.log")
        )
    return 0


def _already(home: Path, console: Console) -> int:
    """Another `make up` has the folder: wait until its network is ready."""
    deadline = time.monotonic() + START_TIMEOUT_S
    told = False
    while read_run_file(home) is None:
        if not runs(home):
            raise StartError("the network was being started or stopped, and now is down")
        if time.monotonic() > deadline:
            raise StartError("the network is still being started: see `make logs`")
        if not told:
            told = True
            console.print("the network is already being started; waiting for it …")
        time.sleep(0.2)
    console.print("the network already runs")
    show_network(home, console)
    return 0


def show_network(home: Path, console: Console) -> None:
    """Addresses, logins, a card, and a line to try."""
    run = read_run_file(home)
    if run is None:
        raise StartError(f"{home}/run.json is not there")
    table = Table(box=None, show_header=False, pad_edge=False)
    for name in ("portal", "identity", "timebank", "access", "places"):
        if name in run:
            table.add_row(f"[bold]{name}[/bold]", run[name], "/docs" if name != "portal" else "")
    console.print(table)
    if not run["logins"]:
        return
    people = Table("login", "e-mail", "password", box=None, pad_edge=False, header_style="bold")
    for role, login in run["logins"].items():
        people.add_row(role, login["email"], login["password"])
    console.print(people)
    curl = tap_line(run)
    if curl is not None:
        console.print("Tap the demo card at a door:")
        console.print(curl, soft_wrap=True, highlight=False, markup=False)


def tap_line(run: dict[str, Any]) -> str | None:
    """A curl command that presents the demo traveller's card at a door that is always open."""
    traveller = run["logins"].get("member", {}).get("member_id")
    cards = [c for c in run["cards"] if c["status"] == "active" and c["member_id"] == traveller]
    doors = [
        r for r in run["readers"] if r["kind"] == "public" and r.get("opening_hours") == "24/7"
    ]
    if not cards or not doors:
        return None
    body = {
        "tap_id": "TAP",
        "door_id": doors[0]["door_id"],
        "credential": {"type": "uid", "uid": cards[0]["uid"]},
        "direction": "in",
        "occurred_at": "NOW",
        "mode": "live",
    }
    quoted = (
        shlex.quote(json.dumps(body))
        .replace('"TAP"', f'"{uuid4()}"')
        .replace('"NOW"', "\"'$(date -u +%FT%TZ)'\"")
    )
    return (
        f"curl -s {run['access']}/v1/taps -H 'Authorization: Bearer {doors[0]['key']}' "
        f"-H 'Content-Type: application/json' -d {quoted}"
    )
