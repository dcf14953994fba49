"""`make bench`: measures the bars on the running network, writes results.json and a page."""

from __future__ import annotations

import asyncio
import json
import os
import platform
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from copass.bench.page import write_page
from copass.bench.results import Result, write_results
from copass.bench.revoke import measure_revocation
from copass.bench.stack import measure_idle_memory
from copass.bench.taps import BenchError, Target, cards_at_doors, everybody_leaves, measure_taps
from copass.demo import Failed, Lang, Story
from copass.demo_api import ApiError, Unreachable, open_api
from copass.demo_data import demo_network
from copass.demo_state import Home, NotSeeded, need_state, service_urls

Measure = Callable[[], Awaitable[list[Result]]]
GROUPS = ("memory", "taps", "revoke")


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


async def run_bench(
    home: Path, groups: list[str], pairs: int, seconds: float, trials: int, console: Console
) -> list[Result]:
    network = demo_network()
    state, urls = need_state(home, network), service_urls(home)
    run = json.loads((home / "run.json").read_text(encoding="utf-8"))
    target = Target(home, urls["access"], run["redis"], cards_at_doors(network, state))
    results: list[Result] = []
    async with open_api(urls) as api:
        story = Story(api, network, state, Lang.en)
        measures: dict[str, Measure] = {
            "memory": lambda: measure_idle_memory(home, console),
            "taps": lambda: measure_taps(target, pairs=pairs, seconds=seconds, console=console),
            "revoke": lambda: measure_revocation(target, story, trials=trials, console=console),
        }
        try:
            for name in groups:
                console.print(f"[bold]{name}[/bold]")
                results += await measures[name]()
        finally:
            await everybody_leaves(api, target.cards)
    return results


def bench(
    home: Home,
    out: Annotated[Path, typer.Option(help="Where results.json and index.html go.")] = Path(
        "bench"
    ),
    only: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(GROUPS)}; may be repeated.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Contender and baseline, in turns.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of one measurement.")] = 3,
    trials: Annotated[int, typer.Option(min=1, help="Blocks of a card.")] = 200,
) -> None:
    """Measure the bars. The network must be running, and the machine otherwise idle."""
    console = Console(soft_wrap=True)
    groups = only or list(GROUPS)
    unknown = set(groups) - set(GROUPS)
    if unknown:
        raise typer.BadParameter(f"no such group: {', '.join(sorted(unknown))}")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            results = runner.run(run_bench(home, groups, pairs, seconds, trials, console))
    except (NotSeeded, BenchError, Failed, ApiError, Unreachable) as error:
        console.print(f"[red]bench:[/red] {error}", highlight=False)
        raise typer.Exit(1) from error
    write_results(out, results)
    write_page(out, results, machine())
    show(results, console)
    console.print(f"{out / 'results.json'}, {out / 'index.html'}", highlight=False)


def register(app: typer.Typer) -> None:
    app.command()(bench)
