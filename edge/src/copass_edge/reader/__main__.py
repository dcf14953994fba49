"""`copass-reader pair | test | status | run`: the installer's commands."""

import asyncio
import contextlib
import json
import logging
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.table import Table

from copass_edge.reader.clock import Clock
from copass_edge.reader.config import (
    DEFAULT_FOLDER,
    BadConfig,
    Config,
    load_config,
    make_folder,
    read_key,
    save_config,
)
from copass_edge.reader.credentials import read_text
from copass_edge.reader.devices import DeviceError, make_input, make_relay
from copass_edge.reader.journal import Journal
from copass_edge.reader.papers import Papers
from copass_edge.reader.program import Program
from copass_edge.reader.service import Away, Refused, Service, new_tap_id, wire_tap
from copass_edge.reader.status import Status, is_damaged, read_status
from copass_tap.snapshots import BadPaper

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they would show the secret among the local variables
    help="The reader beside a door.",
)
console = Console(highlight=False)

Folder = Annotated[
    Path,
    typer.Option("--folder", envvar="COPASS_READER_FOLDER", help="Where this board keeps things."),
]
CLOCK_OFF_WARN_S = 5.0
CARD_WAIT_S = 20.0
CLICK_MS = 500


def main() -> None:
    app()


@app.command()
def pair(
    url: Annotated[str, typer.Argument(help="Where the access service is: https://…")],
    key: Annotated[
        str, typer.Argument(help="<reader_id>.<secret>; - reads it from standard input.")
    ],
    door: Annotated[str, typer.Option(help="Which door, if the reader stands at several.")] = "",
    direction: Annotated[str, typer.Option(help="in or out: which way this reader leads.")] = "in",
    input: Annotated[
        str, typer.Option(help="stdin, tcp:PORT, evdev:DEVICE, serial:DEVICE[@BAUD], pcsc[:NAME]")
    ] = "stdin",
    exit_input: Annotated[str, typer.Option(help="Button or reader inside, as --input.")] = "",
    relay: Annotated[str, typer.Option(help="simulated, or gpio:CHIP:LINE[:low]")] = "simulated",
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Make this board the reader of a door: checks the key, keeps it, and fetches what the board
    needs to decide alone. Again for another door, another key, or other devices."""
    if key == "-":
        key = typer.get_text_stream("stdin").readline()
    try:
        reader_id, secret = read_key(key)
        check_url(url)
        if direction not in ("in", "out"):
            raise BadConfig("the direction is in or out")
        config = asyncio.run(
            ask_and_fetch(
                Config(
                    url=url.rstrip("/"),
                    reader_id=reader_id,
                    secret=secret,
                    door_id=door.lower(),
                    snapshot_key="",
                    direction=direction,
                    input=input,
                    exit_input=exit_input,
                    relay=relay,
                ),
                folder,
            )
        )
    except BadConfig as error:
        fail(str(error))
    except Refused as error:
        if error.status == 401:
            fail("The service does not know this key, or it was revoked.")
        fail(f"The service refuses: {error.detail or error.code}")
    except Away as error:
        fail(f"The service cannot be reached at {url}: {error}")
    except BadPaper as error:
        fail(f"What the service sent cannot be believed: {error}")
    except (OSError, sqlite3.Error) as error:
        fail(f"{folder} cannot be written: {error}. Run this as the user of the program.")
    console.print(f"[green]paired[/green] with door {config.door_id}")
    console.print(f"  key of its snapshots: {config.snapshot_key[:16]}…")
    console.print("Now: copass-reader test")


def check_url(url: str) -> None:
    """Raises BadConfig for an address that would show the key to the network."""
    at = urlsplit(url)
    if at.scheme == "https" and at.hostname:
        return
    if at.scheme == "http" and at.hostname in ("127.0.0.1", "localhost", "::1"):
        return
    raise BadConfig("the address begins with https:// (http only on this very machine)")


async def ask_and_fetch(config: Config, folder: Path) -> Config:
    """The configuration with door and key as the service says, saved with the first snapshot.

    Raises BadConfig, Away, Refused, BadPaper, OSError, sqlite3.Error; nothing is kept then.
    """
    clock = Clock()
    service = Service(config, clock)
    try:
        answer = await service.whoami()
        doors = [str(one["door_id"]) for one in answer.get("doors", [])]
        if not doors:
            raise BadConfig("no door has this reader: put it there in the register of places first")
        if not config.door_id and len(doors) > 1:
            raise BadConfig(f"this reader stands at several doors, name one: {', '.join(doors)}")
        door_id = config.door_id or doors[0]
        if door_id not in doors:
            raise BadConfig(f"this reader does not stand at {door_id}, but at: {', '.join(doors)}")
        config = replace(config, door_id=door_id, snapshot_key=str(answer["snapshot_key"]))
        try:
            papers = Papers(folder, config)
        except ValueError:
            raise Away("the answer has another shape") from None
        found = await service.snapshot(door_id, "")
        if found is None:
            raise Away("the service sent no snapshot")
        raw, etag, _ = found
        make_folder(folder)
        journal = Journal(folder / "journal.sqlite")
        try:
            check_backlog(folder, journal, config)
            held = papers.install(raw, etag, clock.now())
            # What was heard of another door or by another key means nothing any more.
            journal.forget_withdrawn(2**62)
            journal.set_fact("changes_sequence", held.snapshot.header.sequence)
            journal.set_fact("changes_issued_at", 0)
            journal.set_fact("locked_down", None)
            journal.set_fact("snapshot_issued_at", held.snapshot.header.issued_at)
        finally:
            journal.close()
        save_config(folder, config)
        return config
    finally:
        await service.close()


def check_backlog(folder: Path, journal: Journal, config: Config) -> None:
    """Raises BadConfig when taps of another door wait to be sent by this board."""
    try:
        before = load_config(folder)
    except BadConfig:
        return
    is_same = (before.reader_id, before.door_id) == (config.reader_id, config.door_id)
    backlog = journal.backlog()
    if backlog and not is_same:
        raise BadConfig(
            f"{backlog} taps of door {before.door_id} wait to be sent: let the program run until"
            " copass-reader status shows no backlog, then pair"
        )


@app.command()
def run(folder: Folder = DEFAULT_FOLDER) -> None:
    """Run the reader until it is stopped. The systemd unit does this."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = need_config(folder)
    try:
        asyncio.run(run_until_stopped(folder, config))
    except DeviceError as error:
        fail(str(error))
    except sqlite3.Error as error:
        fail(is_damaged(error))


async def run_until_stopped(folder: Path, config: Config) -> None:
    """Raises DeviceError, sqlite3.Error, and whatever nobody foresaw."""
    program = Program(folder, config)
    running = asyncio.ensure_future(program.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="For what watches this board.")] = False,
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """How this reader does. Exit code 1 when it is not well."""
    config = need_config(folder)
    try:
        found = read_status(folder, config)
    except sqlite3.Error as error:
        fail(is_damaged(error))
    if as_json:
        typer.echo(json.dumps(found.fields()))
    else:
        console.print(status_table(found))
    raise typer.Exit(0 if found.is_well else 1)


def status_table(found: Status) -> Table:
    table = Table(show_header=False, box=None)
    rows = {
        "door": found.door_id,
        "service": f"{found.url}: " + ("answers" if found.is_online else "[red]away[/red]"),
        "last contact": age_text(found.contact_age_s),
        "snapshot": "[red]none[/red]"
        if found.snapshot_age_s is None
        else f"{found.snapshot_cards} cards, {age_text(found.snapshot_age_s)}"
        + ("" if found.snapshot_is_complete else ", [yellow]not all that may enter[/yellow]"),
        "decides alone": f"for visitors {duration(found.visitors_s)},"
        f" residents and staff {duration(found.household_s)}",
        "backlog": f"{found.backlog} taps",
        "clock": f"{found.clock_offset_s:+.1f} s"
        + ("" if found.clock_is_trusted else ", [red]not trusted[/red]"),
    }
    if found.is_turned_away:
        rows["refused"] = "[red]the service does not want this reader: pair it again[/red]"
    if found.is_locked_down:
        rows["lockdown"] = "[red]the place is locked down[/red]"
    if found.differing or found.refused:
        rows["differences"] = (
            f"{found.differing} taps that the service decided otherwise, {found.refused} not taken"
        )
    if found.problem:
        rows["problem"] = f"[red]{found.problem}[/red]"
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def age_text(seconds: int | None) -> str:
    return "never" if seconds is None else f"{duration(seconds)} ago"


def duration(seconds: int | None) -> str:
    if not seconds:
        return "0 s" if seconds == 0 else "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@app.command("test")
def try_out(
    card: Annotated[str, typer.Option(help="Use this UID, and wait for no card.")] = "",
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Try every part: network, clock, snapshot, input, relay, and one tap that the service
    decides. The relay clicks for half a second. Stop the program first."""
    config = need_config(folder)
    checks: list[tuple[str, Callable[[], Awaitable[str]]]] = [
        ("network", lambda: check_network(config)),
        ("clock", lambda: check_clock(config)),
        ("snapshot", lambda: check_snapshot(folder, config)),
        ("relay", lambda: check_relay(config)),
    ]
    failed = asyncio.run(run_checks(checks, config, card))
    raise typer.Exit(1 if failed else 0)


async def run_checks(
    checks: list[tuple[str, Callable[[], Awaitable[str]]]], config: Config, card: str
) -> int:
    failed = 0
    for name, check in checks:
        failed += not await show_check(name, check())
    text = card
    if not card:
        console.print(f"  hold a card to {config.input} within {CARD_WAIT_S:.0f} s")
        found: list[str] = []
        failed += not await show_check("input", check_input(config, found))
        text = found[0] if found else ""
    if text:
        failed += not await show_check("tap", check_tap(config, text))
    return failed


async def show_check(name: str, check: Awaitable[str]) -> bool:
    try:
        console.print(f"[green]ok[/green]    {name}: {await check}")
    except (Away, Refused, BadPaper, DeviceError, OSError, TimeoutError, BadConfig) as error:
        console.print(f"[red]fails[/red] {name}: {error or type(error).__name__}")
        return False
    return True


async def check_network(config: Config) -> str:
    service = Service(config, Clock())
    try:
        started = time.monotonic()
        await service.whoami()
        first_ms = (time.monotonic() - started) * 1000
        started = time.monotonic()
        answer = await service.whoami()
        again_ms = (time.monotonic() - started) * 1000
    finally:
        await service.close()
    if str(answer.get("snapshot_key")) != config.snapshot_key:
        raise BadConfig("the service signs with another key than when this board was paired")
    return f"{config.url} answers in {again_ms:.0f} ms, {first_ms:.0f} ms the first time"


async def check_clock(config: Config) -> str:
    clock = Clock()
    service = Service(config, clock)
    try:
        await service.whoami()
    finally:
        await service.close()
    off = abs(clock.offset_s)
    advice = "" if off < CLOCK_OFF_WARN_S else "; corrected, but let this board use NTP"
    return f"{off:.0f} s off{advice}"


async def check_snapshot(folder: Path, config: Config) -> str:
    papers = Papers(folder, config)
    papers.load()
    if papers.held is None:
        raise BadPaper("there is none: run copass-reader pair again")
    left = round(papers.held.snapshot.header.expires_at - time.time())
    return f"{papers.held.snapshot.header.cards} cards, good for {duration(max(0, left))} alone"


async def check_relay(config: Config) -> str:
    relay = make_relay(config.relay)
    try:
        await relay.open(CLICK_MS)
    finally:
        relay.close()
    return f"{config.relay} was on for {CLICK_MS} ms"


async def check_input(config: Config, found: list[str]) -> str:
    async with asyncio.timeout(CARD_WAIT_S):
        async for text in make_input(config.input).texts():
            reading = read_text(text)
            if reading is None:
                raise DeviceError(f"it read {text[:40]!r}, which is no card's")
            found.append(text)
            return f"{config.input} read a {reading.type}"
    raise DeviceError(f"{config.input} ended")


async def check_tap(config: Config, text: str) -> str:
    """One tap that is decided and recorded like any other, and opens nothing."""
    reading = read_text(text)
    if reading is None:
        raise DeviceError(f"{text[:40]!r} is no card's")
    clock = Clock()
    service = Service(config, clock)
    try:
        await service.whoami()
        body: dict[str, Any] = wire_tap(
            new_tap_id(), config.door_id, reading.wire, config.direction, clock.now(), "live"
        )
        started = time.monotonic()
        answer = await service.tap(body)
        taken_ms = (time.monotonic() - started) * 1000
    finally:
        await service.close()
    late = "" if taken_ms < config.live_limit_ms else "; too late: this door would decide alone"
    decision = "grant" if answer.granted else "deny"
    return f"{decision}, {answer.reason}, in {taken_ms:.0f} ms{late}"


def need_config(folder: Path) -> Config:
    try:
        return load_config(folder)
    except BadConfig as error:
        fail(str(error))
    except PermissionError:
        fail(f"{folder} is readable by its own user alone: run this as that user")


def fail(text: str) -> NoReturn:
    """Say why and end. Never returns."""
    console.print(f"[red]{text}[/red]")
    raise typer.Exit(1)


if __name__ == "__main__":
    main()
