"""What a person sees of a running network: the table of processes, the logs."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from copass.processes import StartError, log_tail

FOLLOW_EVERY_S = 0.3
MIB = 1024 * 1024


def resident_mib(pid: int | None) -> float:
    """Resident memory of a process and its children, shared pages counted once (PSS)."""
    if pid is None:
        return 0.0
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return float(sum(one.memory_full_info().pss for one in family)) / MIB
    except (psutil.Error, OSError):
        return 0.0


def show_status(answer: dict[str, Any], console: Console) -> None:
    table = Table("process", "state", "pid", "restarts", "MiB", box=None, header_style="bold")
    total = 0.0
    for part in answer["parts"]:
        memory = resident_mib(part["pid"])
        total += memory
        table.add_row(
            part["name"],
            part["state"],
            str(part["pid"] or ""),
            str(part["restarts"]),
            f"{memory:.0f}",
        )
    console.print(table)
    age = timedelta(seconds=round(time.time() - answer["since"]))
    state = "ready" if answer["ready"] else "starting"
    console.print(f"{state}, for {age}; {total:.0f} MiB in all")


def follow_logs(
    folder: Path, name: str | None, lines: int, *, follow: bool, console: Console
) -> None:
    """Print the last lines of each log; then what is added, until Ctrl-C."""
    files = sorted(folder.glob(f"{name or '*'}.log"))
    if not files:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.log"))) or "none yet"
        raise StartError(f"there is no log of {name}; there are: {known}")
    width = max(len(file.stem) for file in files)

    def show(file: Path, text: str) -> None:
        for line in text.splitlines():
            console.print(f"{file.stem:{width}} │ {line}", markup=False, soft_wrap=True)

    at = {}
    for file in files:
        at[file] = file.stat().st_size
        show(file, log_tail(file, lines) if lines else "")
    try:
        while follow:
            time.sleep(FOLLOW_EVERY_S)
            for file in files:
                size = file.stat().st_size
                if size < at[file]:
                    at[file] = 0
                if size > at[file]:
                    with file.open("rb") as grown:
                        grown.seek(at[file])
                        new = grown.read(size - at[file])
                    at[file] += len(new)
                    show(file, new.decode(errors="replace"))
    except KeyboardInterrupt:
        return
