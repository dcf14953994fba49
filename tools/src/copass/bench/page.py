"""index.html: the numbers with their plots, in one file that needs nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from copass.bench.results import Result, Series, rounded

WIDTH, HEIGHT, MARGIN = 560, 150, 46
COLOURS = ("#0b6e4f", "#b5651d", "#3b5b92")

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
td.number { text-align: right; }
.held { color: #0b6e4f; } .missed { color: #c0392b; }
figure { margin: 2rem 0; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: currentColor; }
"""


def write_page(folder: Path, results: Sequence[Result], machine: str) -> None:
    rows = "\n".join(row(result) for result in results)
    figures = "\n".join(figure(result) for result in results if result.series)
    head = "".join(
        f"<th scope=col>{name}</th>" for name in ("bar", "value", "goal", "baseline", "measured")
    )
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Copass: the bench</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>
<body><h1>Copass: the bench</h1>
<p>{escape(machine)}. Ratios are contender ÷ baseline, the median of pairs measured in turns.</p>
<table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table>
{figures}
</body></html>
"""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(page, encoding="utf-8")


def row(result: Result) -> str:
    sign = "≥" if result.better == "higher" else "≤"
    goal = "" if result.goal is None else f"{sign} {result.goal:g}"
    verdict = {True: "held", False: "missed", None: ""}[result.held]
    baseline = "" if result.baseline is None else f"{rounded(result.baseline):g}"
    cells = (
        f'<td class="number {verdict}">{rounded(result.value):g} {escape(result.unit)}</td>'
        f'<td class="number {verdict}">{goal} {verdict}</td>'
        f'<td class="number">{baseline}</td><td>{escape(result.at)}</td>'
    )
    return f"<tr><th scope=row>{escape(result.name)}</th>{cells}</tr>"


def figure(result: Result) -> str:
    unit = result.series[0].unit
    goal = result.goal if result.unit == unit else None
    return (
        f"<figure><figcaption>{escape(result.name)} ({escape(unit)})</figcaption>"
        f"{plot(result.series, goal)}</figure>"
    )


def plot(series: Sequence[Series], goal: float | None) -> str:
    """Points in order of measurement, one colour per series; the goal as a dashed line."""
    top = max([value for one in series for value in one.values] + [goal or 0.0]) * 1.08 or 1.0
    length = max(len(one.values) for one in series)

    def x(n: int) -> float:
        return MARGIN + (WIDTH - MARGIN - 8) * (n + 0.5) / length

    def y(value: float) -> float:
        return HEIGHT - 24 - (HEIGHT - 36) * value / top

    parts = [
        f'<line x1="{MARGIN}" x2="{WIDTH - 8}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
        f'stroke="currentColor" stroke-opacity=".15"/>'
        f'<text x="{MARGIN - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{rounded(value):g}</text>'
        for value in (0.0, top / 2, top)
    ]
    if goal is not None:
        parts.append(
            f'<line x1="{MARGIN}" x2="{WIDTH - 8}" y1="{y(goal):.1f}" y2="{y(goal):.1f}" '
            f'stroke="#c0392b" stroke-dasharray="5 4"/>'
        )
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        parts += [
            f'<circle cx="{x(n):.1f}" cy="{y(value):.1f}" r="2.6" fill="{colour}"/>'
            for n, value in enumerate(one.values)
        ]
        parts.append(
            f'<text x="{MARGIN + 130 * number}" y="{HEIGHT - 4}" style="fill:{colour}">'
            f"● {escape(one.label)}</text>"
        )
    label = ", ".join(one.label for one in series)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
