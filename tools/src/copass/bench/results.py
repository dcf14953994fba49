"""What a bench found, and where it is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Series:
    """Single measurements behind a result, for the plot. `values` in `unit`, in order of time."""

    label: str
    unit: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One number. A ratio is contender ÷ baseline; `baseline` is then the baseline's own median.

    `goal` None: measured to be known, nothing is promised.
    """

    name: str
    value: float
    unit: str
    at: str  # ISO 8601, UTC
    baseline: float | None = None
    goal: float | None = None
    better: Better = "higher"
    series: tuple[Series, ...] = field(default=(), compare=False)

    @property
    def held(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": rounded(self.value),
            "unit": self.unit,
            "baseline": None if self.baseline is None else rounded(self.baseline),
            "goal": self.goal,
            "better": self.better,
            "at": self.at,
        }


def rounded(value: float) -> float:
    """Four significant figures: no measurement here is better than that."""
    return float(f"{value:.4g}")


def write_results(folder: Path, results: Sequence[Result]) -> None:
    """results.json: the numbers of this run, and of earlier ones for what it did not measure."""
    path = folder / "results.json"
    try:
        earlier = {one["name"]: one for one in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, KeyError, TypeError):
        earlier = {}
    merged = earlier | {result.name: result.as_json() for result in results}
    folder.mkdir(parents=True, exist_ok=True)
    making = path.with_suffix(".making")
    making.write_text(
        json.dumps(list(merged.values()), ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    making.replace(path)
