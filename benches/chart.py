"""The charts of docs/performance.md."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
COLOURS = ("#2a6fdb", "#d9534f", "#3a9d5d", "#b8860b", "#7b52ab", "#5a6b7b")
STYLE = "<style>text{font:12px sans-serif;fill:#444}line,path{stroke:#999}@media(prefers-color-scheme:dark){text{fill:#ccc}}</style>"


def bars(name: str, title: str, values: Mapping[str, float]) -> str:
    """Writes docs/NAME.svg, a bar for each value; returns the Markdown that shows it."""
    most, height = max(values.values()), 24 * len(values) + 30
    drawn = [f'<text x="0" y="14">{title}</text>']
    for i, (label, value) in enumerate(values.items()):
        y = 30 + 24 * i
        colour = COLOURS[0] if label.startswith("threadsafe-ocr") else COLOURS[5]
        drawn.append(f'<text x="270" y="{y + 13}" text-anchor="end">{_escaped(label)}</text>')
        drawn.append(f'<rect x="280" y="{y}" width="{value / most * 360:.1f}" height="18" fill="{colour}"/>')
        drawn.append(f'<text x="{286 + value / most * 360:.1f}" y="{y + 13}">{value:.2f}</text>')
    return _write(name, title, 700, height, drawn)


def curves(name: str, title: str, x_name: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Writes docs/NAME.svg, both axes logarithmic; returns the Markdown that shows it."""
    points = [point for line in series.values() for point in line]
    logs = [[math.log10(max(value, 1e-9)) for value in side] for side in zip(*points, strict=True)]
    (left, right), (low, high) = ((math.floor(min(side)), max(math.ceil(max(side)), math.floor(min(side)) + 1)) for side in logs)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(max(x, 1e-9)) - left) / (right - left)
        return 60 + across * 400, 250 - (math.log10(max(y, 1e-9)) - low) / (high - low) * 210

    drawn = [f'<text x="0" y="14">{title}</text>', f'<text x="260" y="285" text-anchor="middle">{x_name}</text>']
    for power in range(left, right + 1):
        x, _ = at(10.0**power, 10.0**low)
        drawn += [f'<line x1="{x}" y1="40" x2="{x}" y2="250"/>', f'<text x="{x}" y="266" text-anchor="middle">{10.0**power:g}</text>']
    for power in range(low, high + 1):
        _, y = at(10.0**left, 10.0**power)
        drawn += [f'<line x1="60" y1="{y}" x2="460" y2="{y}"/>', f'<text x="54" y="{y + 4}" text-anchor="end">{10.0**power:g}</text>']
    for i, (label, line) in enumerate(series.items()):
        path = " L".join(f"{x:.1f} {y:.1f}" for x, y in (at(*point) for point in line))
        drawn.append(f'<path d="M{path}" style="fill:none;stroke:{COLOURS[i]};stroke-width:2"/>')
        drawn.append(f'<text x="470" y="{60 + 20 * i}" style="fill:{COLOURS[i]}">{_escaped(label)}</text>')
    return _write(name, title, 700, 295, drawn)


def _escaped(text: str) -> str:
    return re.sub('[&<>"]', lambda found: f"&#{ord(found[0])};", text)


def _write(name: str, title: str, width: int, height: int, drawn: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    (DOCS / f"{name}.svg").write_text("\n".join([head, STYLE, *drawn, "</svg>\n"]), encoding="utf-8")
    return f"![{title}]({name}.svg)\n"
