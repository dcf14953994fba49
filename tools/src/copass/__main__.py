"""`python -m copass up | down | status | logs | restart | start | stop | kill | kafka | …`."""

import os
import sys
import time
from importlib import import_module
from typing import Annotated

import typer
from rich.console import Console

from copass.network import network_from_environment, state_folder
from copass.processes import StartError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Runs the whole Copass network on this machine.",
)
console = Console()
problems = Console(stderr=True)

# Loaded only when asked for: they bring libraries that `up` has no use for.
ELSEWHERE = {
    "seed": "copass.seed",
    "demo": "copass.demo",
    "simulate": "copass.simulate",
    "bench": "copass.bench",
    "contracts": "copass.contracts",
}

Name = Annotated[str, typer.Argument(help="postgres, valkey, kafka, identity-api, …")]


@app.command("up")
def up_command(
    detach: Annotated[
        bool, typer.Option("--detach", envvar="DETACH", help="Return when all is ready.")
    ] = False,
    port_base: Annotated[int | None, typer.Option(help="The first port (8000).")] = None,
    broker: Annotated[
        str | None, typer.Option(help="tansu, or apache (fetched with Maven); or KAFKA=…")
    ] = None,
    seed: Annotated[bool, typer.Option(envvar="SEED", help="Fill in the demo network.")] = True,
) -> None:
    """Start everything: servers, migrations, services, the demo network."""
    from copass.up import up

    network = network_from_environment(port_base=port_base, broker=broker)
    if network.broker == "apache":
        _fetch_kafka()
    code = up(network, console, detach=detach, seed=seed)
    if code:
        raise typer.Exit(code)


@app.command("down")
def down_command() -> None:
    """Stop everything, also what a run that was killed left behind."""
    from copass.control import down

    console.print(down(state_folder()))


@app.command("status")
def status_command() -> None:
    """What runs, and how much memory it takes. Exit code 3 when nothing does."""
    from copass.control import ask, runs
    from copass.status import show_status

    home = state_folder()
    if not runs(home):
        console.print("the network does not run: `make up` starts it")
        raise typer.Exit(3)
    show_status(ask(home, "status"), console)


@app.command("logs")
def logs_command(
    name: Annotated[str | None, typer.Argument(help="One process; all without.")] = None,
    lines: Annotated[int, typer.Option("-n", min=0, help="How many of each to begin with.")] = 20,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f/-F")] = True,
) -> None:
    """Show the logs, and go on as they grow."""
    from copass.status import follow_logs

    follow_logs(state_folder() / "logs", name, lines, follow=follow, console=console)


def _act(command: str, name: str, **fields: object) -> None:
    from copass.control import ask

    started = time.monotonic()
    answer = ask(state_folder(), command, name=name, **fields)
    console.print(f"{answer['message']} ({time.monotonic() - started:.1f} s)")


@app.command("restart")
def restart_command(name: Name) -> None:
    """Stop one process in order, start it, wait until it is ready."""
    _act("restart", name)


@app.command("start")
def start_command(name: Name) -> None:
    """Start a process that was stopped or killed to stay down."""
    _act("start", name)


@app.command("stop")
def stop_command(name: Name) -> None:
    """Stop one process in order; it stays down until `start`."""
    _act("stop", name)


@app.command("kill")
def kill_command(
    name: Name,
    signal: Annotated[str, typer.Option(help="Its name: SIGKILL, SIGSTOP, …")] = "SIGKILL",
    stay_down: Annotated[bool, typer.Option(help="Do not start it again until `start`.")] = False,
) -> None:
    """Send a signal to one process. A process that dies is started again."""
    from signal import Signals

    full = signal.upper() if signal.upper().startswith("SIG") else f"SIG{signal.upper()}"
    if full not in Signals.__members__:
        raise StartError(f"there is no signal {signal}")
    _act("kill", name, signal=int(Signals[full]), stay_down=stay_down)


@app.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_command(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="identity, timebank, access or places.")],
) -> None:
    """Run a service's own command on this network: `run places import FILE`."""
    from copass.control import read_run_file, runs
    from copass.network import SERVICES, environment, load_or_make_secrets

    home = state_folder()
    run = read_run_file(home)
    if run is None or not runs(home):
        raise StartError("the network does not run: `make up` starts it")
    if service not in SERVICES:
        raise StartError(f"there is no service {service}: {', '.join(SERVICES)}")
    network = network_from_environment(port_base=run["port_base"], broker=run["broker"])
    settings = environment(network, load_or_make_secrets(home), service)
    command = [sys.executable, "-m", service, *context.args]
    os.execve(sys.executable, command, {**os.environ, **settings})  # noqa: S606 - no shell wanted


def _fetch_kafka() -> None:
    from copass.kafka import fetch, kafka_version, libs_folder

    if not libs_folder().is_dir():
        console.print(f"fetching Apache Kafka {kafka_version()} …")
    fetch()


@app.command("kafka")
def kafka_command() -> None:
    """Fetch Apache Kafka with Maven, for `make up KAFKA=apache` and `make test-kafka`."""
    from copass.kafka import kafka_version, libs_folder

    _fetch_kafka()
    console.print(f"Apache Kafka {kafka_version()} is in {libs_folder()}")


def main() -> None:
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    os.environ["COPASS_HOME"] = str(state_folder())  # the same for all, from any folder
    for name, module in ELSEWHERE.items():
        if asked in (name, "--help", ""):
            import_module(module).register(app)
    try:
        app()
    except StartError as error:
        problems.print(str(error), style="red", markup=False, highlight=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
