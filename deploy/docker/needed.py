"""Cut the repository's lock file down to what one service needs.

    python needed.py requirements.lock pyproject.toml [pyproject.toml …] > needed.txt

There is one lock file, so that every service runs the versions that were tested together; an image
holds only its own share of it, with the same hashes. Standard library only: it runs before anything
is installed. Raises SystemExit when a dependency is not in the lock file.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

FIRST_PARTY = "copass-"


class Locked(NamedTuple):
    """One pinned package: its lines as they stand, and which packages asked for it."""

    text: str
    wanted_by: frozenset[str]


def normalised(requirement: str) -> str:
    """`pyjwt[crypto]>=2 ; python_version…` → `pyjwt`; PEP 503 spelling."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
    if name is None:
        raise SystemExit(f"needed.py: {requirement!r} is not a requirement")
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def read_lock(text: str) -> dict[str, Locked]:
    """The pinned packages by name. Expects the annotations (`# via`) that uv writes."""
    locked: dict[str, Locked] = {}
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        lines = block.splitlines()
        if not lines or "==" not in lines[0]:
            continue
        pinned = [line for line in lines if not line.lstrip().startswith("#") and line.strip()]
        comments = [line.strip(" #") for line in lines if line.lstrip().startswith("#")]
        wanted_by = (comment.removeprefix("via").strip() for comment in comments)
        locked[normalised(lines[0])] = Locked(
            "\n".join(pinned),
            frozenset(normalised(w) for w in wanted_by if w and not w.startswith("-r")),
        )
    return locked


def dependencies(projects: Iterable[Path]) -> set[str]:
    """What the given pyproject.toml files ask for, without our own packages."""
    wanted: set[str] = set()
    for project in projects:
        declared = tomllib.loads(project.read_text("utf-8"))["project"].get("dependencies", [])
        wanted |= {normalised(requirement) for requirement in declared}
    return {name for name in wanted if not name.startswith(FIRST_PARTY)}


def closure(wanted: set[str], locked: dict[str, Locked]) -> set[str]:
    """`wanted` and everything that was locked on their account, however far."""
    missing = wanted - locked.keys()
    if missing:
        raise SystemExit(f"needed.py: not in the lock file: {', '.join(sorted(missing))}")
    found = set(wanted)
    while more := {n for n, pin in locked.items() if pin.wanted_by & found} - found:
        found |= more
    return found


def main(arguments: list[str]) -> None:
    """Print the service's share of the lock file."""
    lock, *projects = map(Path, arguments)
    locked = read_lock(lock.read_text("utf-8"))
    for name in sorted(closure(dependencies(projects), locked)):
        sys.stdout.write(locked[name].text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
