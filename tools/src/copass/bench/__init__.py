"""`make bench`: measures the bars, writes results.json and a page."""

from __future__ import annotations

import asyncio
import json
import os
import platform
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from copass.bench.clearing import measure_clearing
from copass.bench.ledger import Sizes, measure_ledger
from copass.bench.page import write_page
from copass.bench.results import Result, write_results
from copass.bench.revoke import measure_revocation
from copass.bench.scale import measure_scale
from copass.bench.stack import measure_idle_memory, own_network, start_and_time
from copass.bench.taps import BenchError, Target, cards_at_doors, everybody_leaves, measure_taps
from copass.bench.verify import measure_verify
from copass.demo import Failed, Lang, Story
from copass.demo_api import ApiError, Unreachable, open_api
from copass.demo_data import demo_network
from copass.demo_state import NotSeeded, need_state, service_urls
from copass.network import REPOSITORY, state_folder
from copass.processes import StartError

Measure = Callable[[], Awaitable[list[Result]]]
NETWORK_GROUPS = ("memory", "taps", "revoke", "clearing", "scale")
GROUPS = (*NETWORK_GROUPS, "ledger", "verify")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    pairs: int
    seconds: float
    trials: int
    cards: int


def show(results: list[Result], console: Console) -> None:
    table = Table("bar", "value", "goal", "baseline")
    for result in results:
        sign = "≥" if result.better == "higher" else "≤"
        colour = {True: "green", False: "red", None: "default"}[result.held]
        table.add_row(
            result.name,
            f"[{colour}]{result.value:.4g} {result.unit}[/{colour}]",
            "" if result.goal is None else f"{sign} {result.goal:g}",
            "" if result.baseline is None else f"{result.baseline:.4g}",
        )
    console.print(table)


def machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"


async def run_bench(home: Path, groups: list[str], plan: Plan, console: Console) -> list[Result]:
    """Measures on the network that runs in `home`. Raises BenchError and what the demo raises."""
    network = demo_network()
    state, urls = need_state(home, network), service_urls(home)
    run = json.loads((home / "run.json").read_text(encoding="utf-8"))
    cards = cards_at_doors(network, state)
    target = Target(home, urls["access"], run["redis"], run["kafka"], cards)
    results: list[Result] = []
    async with open_api(urls) as api:
        story = Story(api, network, state, Lang.en)
        measures: dict[str, Measure] = {
            "memory": lambda: measure_idle_memory(home, console),
            "taps": lambda: measure_taps(
                target, pairs=plan.pairs, seconds=plan.seconds, console=console
            ),
            "revoke": lambda: measure_revocation(
                target, story, trials=plan.trials, console=console
            ),
            "clearing": lambda: measure_clearing(story, trials=plan.trials, console=console),
            "scale": lambda: measure_scale(
                target,
                network,
                cards=plan.cards,
                pairs=plan.pairs,
                seconds=plan.seconds,
                console=console,
            ),
        }
        for name in groups:
            console.print(f"[bold]{name}[/bold]")
            results += await measures[name]()
            if name in ("taps", "revoke"):
                await everybody_leaves(api, target.cards)
    return results


def bench(
    out: Annotated[Path, typer.Option(help="Where results.json and index.html go.")] = (
        REPOSITORY / "bench"
    ),
    running: Annotated[
        bool, typer.Option(help="Measure on the network that runs, not on one of its own.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(GROUPS)}; may be repeated.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Contender and baseline, in turns.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of one measurement.")] = 3,
    trials: Annotated[
        int, typer.Option(min=1, help="Blocks of a card, and transfers between cities.")
    ] = 200,
    cards: Annotated[int, typer.Option(min=20_000, help="Of the scale group.")] = 1_000_000,
    rows: Annotated[int, typer.Option(min=5_000, help="Of an import, ledger group.")] = 30_000,
    postings: Annotated[
        int, typer.Option(min=10_000, help="Of the large book, ledger group.")
    ] = 5_000_000,
    entries: Annotated[int, typer.Option(min=10_000, help="Of the log, verify group.")] = 1_000_000,
) -> None:
    """Measure the bars, on servers of its own; the machine should be otherwise idle."""
    console = Console(soft_wrap=True)
    groups = only or list(NETWORK_GROUPS if running else GROUPS)
    unknown = set(groups) - set(GROUPS)
    if unknown:
        raise typer.BadParameter(f"no such group: {', '.join(sorted(unknown))}")
    in_network = [group for group in NETWORK_GROUPS if group in groups]
    if running and "scale" in groups:
        if only:
            raise typer.BadParameter("scale fills the network with cards that nobody has")
        in_network.remove("scale")
    plan = Plan(pairs, seconds, trials, cards)
    results: list[Result] = []

    def measure(home: Path) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            results.extend(runner.run(run_bench(home, in_network, plan, console)))

    try:
        if running and in_network:
            measure(state_folder())
        elif in_network:
            with own_network() as network:
                console.print("[bold]start[/bold]")
                results += start_and_time(network, console)
                measure(network.home)
        # Afterwards, when the network is gone: it has a server of its own, and needs the machine.
        sizes = Sizes(pairs, seconds, rows, postings, entries=entries)
        for name, of_ledger in (("ledger", measure_ledger), ("verify", measure_verify)):
            if name in groups:
                console.print(f"[bold]{name}[/bold]")
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    results.extend(runner.run(of_ledger(sizes, console)))
    except (NotSeeded, BenchError, Failed, ApiError, Unreachable, StartError) as error:
        console.print(f"[red]bench:[/red] {error}", highlight=False)
        raise typer.Exit(1) from error
    write_results(out, results)
    write_page(out, results, machine())
    show(results, console)
    console.print(f"{out / 'results.json'}, {out / 'index.html'}", highlight=False)


def register(app: typer.Typer) -> None:
    app.command()(bench)
