"""Running the models with Spin, and reading what they say their steps are.

The reader knows what the models use: `#ifdef` and `#define`, and a step on one line,
`:: atomic { guard -> effect; effect }` or `:: guard -> effect; effect`.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODELS = Path(__file__).parents[2] / "docs" / "models"
CPU_S_MAX = 30
SAFETY = ("-DSAFETY", "-DNOCLAIM")
ENDS = ("-DNFAIR=4",)
COMES_TO_REST = ("-DNP", "-DNOCLAIM")


def missing_tool() -> str | None:
    return next((tool for tool in ("spin", "gcc") if shutil.which(tool) is None), None)


@dataclass(frozen=True)
class Checked:
    """What the model checker says: errors found, and whether it looked at every state."""

    errors: int
    states: int
    complete: bool
    output: str


def check(
    model: str, folder: Path, *, without: tuple[str, ...] = (), how: tuple[str, ...] = SAFETY
) -> Checked:
    """Look at every state of a model. `without`: what is defined; `how`: for the C compiler."""
    defined = [f"-D{name}" for name in without]
    limit = ["timeout", str(CPU_S_MAX)]
    arguments = {SAFETY: [], ENDS: ["-a", "-f"], COMES_TO_REST: ["-l"]}[how]
    steps = [
        ["spin", *defined, "-a", str(MODELS / f"{model}.pml")],
        ["gcc", "-O0", "-w", "-DVECTORSZ=2048", *how, "-o", "pan", "pan.c"],
        ["./pan", "-m1000000", *arguments],
    ]
    output = ""
    for step in steps:
        done = subprocess.run(
            [*limit, *step], cwd=folder, capture_output=True, text=True, check=False
        )
        output = done.stdout + done.stderr
        if done.returncode:
            raise RuntimeError(f"{' '.join(step)} failed: {output}")
    found = re.search(r"errors: (\d+)", output)
    states = re.search(r"^\s*(\d+) states, stored", output, re.MULTILINE)
    if not found or not states:
        raise RuntimeError(f"{model} was not checked: {output}")
    complete = "Search not completed" not in output and "max search depth" not in output
    return Checked(int(found[1]), int(states[1]), complete, output)


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────


def source(model: str) -> str:
    """The text of a model with nothing defined, without comments, its macros put in."""
    text = re.sub(r"/\*.*?\*/", "", (MODELS / f"{model}.pml").read_text(), flags=re.DOTALL)
    lines: list[str] = []
    macros: dict[str, str] = {}
    keeps = [True]
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split()
        first = words[0] if words else ""
        if first in ("#ifdef", "#ifndef"):
            keeps.append(keeps[-1] and (first == "#ifndef") != (words[1] in macros))
        elif first == "#else":
            outer = keeps[-2]
            keeps[-1] = outer and not keeps[-1]
        elif first == "#endif":
            keeps.pop()
        elif not keeps[-1]:
            continue
        elif first == "#define":
            name, body = re.match(r"#define\s+(\w+)(?:\(\w\))?\s+(.*)", line).groups()  # type: ignore[union-attr]
            macros[name] = body.strip()
        else:
            lines.append(line)
    joined = "\n".join(lines)
    for _ in range(3):
        for name, body in macros.items():
            joined = re.sub(rf"\b{name}\b(?:\(t\))?", lambda _, body=body: body, joined)
    return joined


def block(text: str, head: str) -> str:
    """What stands between the braces of `proctype x(…)` or `inline x(…)`."""
    at = text.index("{", text.index(head)) + 1
    depth, end = 1, at
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[at : end - 1]


@dataclass(frozen=True)
class Step:
    """A step of a model: when it may be taken, and what it changes."""

    guard: str
    effects: tuple[str, ...]

    def may(self, state: Mapping[str, Any]) -> bool:
        return bool(value(self.guard, state))

    def taken(self, state: Mapping[str, Any]) -> dict[str, Any]:
        after = dict(state)
        for effect in self.effects:
            if counted := re.fullmatch(r"(\w+)(\+\+|--)", effect):
                after[counted[1]] += 1 if counted[2] == "++" else -1
            elif assigned := re.fullmatch(r"(\w+)\s*=\s*(.+)", effect):
                after[assigned[1]] = value(assigned[2], after)
            else:
                raise ValueError(f"a step that the reader does not know: {effect}")
        return after


def value(expression: str, state: Mapping[str, Any]) -> Any:
    words = {"true": True, "false": False}
    python = expression.replace("&&", " and ").replace("||", " or ")
    python = re.sub(r"!(?!=)", " not ", python)
    return eval(python, {"__builtins__": {}}, {**words, **NAMES, **state})


# The names of the models' states stand for themselves.
NAMES = {
    word: word
    for word in ("idle", "sent", "settled", "returned", "undecided", "accepted", "refused")
}


def steps(text: str) -> Iterator[Step]:
    """The steps of a block that stand on one line, for one transfer: `out[t]` is `out`."""
    for line in text.replace("[t]", "").splitlines():
        found = re.match(r"\s*::\s*(?:atomic \{)?\s*(.+?)\s*->\s*(.+?)\s*\}?$", line)
        if found:
            yield Step(found[1], tuple(effect.strip() for effect in found[2].split(";")))


def may_do(text: str, state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The states that a step of this block may lead to."""
    return [step.taken(state) for step in steps(text) if step.may(state)]


def message_kinds() -> tuple[str, ...]:
    """The kinds of message on the wire of clearing.pml."""
    line = re.search(r"bool (.+);.*what is on the wire", (MODELS / "clearing.pml").read_text())
    if not line:
        raise ValueError("clearing.pml does not say what is on the wire")
    return tuple(re.findall(r"(\w+)\[N\]", line[1]))
