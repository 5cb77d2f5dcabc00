"""From a run folder to one HTML file: collect, render, write.

The page needs no network: styles, script and data are inside it. What models and corpora wrote is hostile input: jinja
escapes it in the markup, ``embedded_json`` in the data, the script only ever sets text, and a content security policy
lets no script run but ours.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from searchr1 import __version__
from searchr1.report import summary
from searchr1.report.alarms import incidents, story, taken_back
from searchr1.report.trajectories import collect_trajectories
from searchr1.run import RunFolder
from searchr1.run_files import VERSION, Row, replacing

MAX_POINTS = 500
"""Longer runs are drawn as the means of equally many neighbouring steps."""

_SCRIPTS = ("report.js", "charts.js", "plot.js", "browser.js", "tokens.js")


def write_page(run_path: Path, out: Path | None) -> Path:
    """The work behind ``report.write_report``."""
    run = RunFolder.open(run_path)
    target = run.path / "report.html" if out is None else out
    target.parent.mkdir(parents=True, exist_ok=True)
    page = render(run).encode(errors="replace")  # a lone surrogate has no UTF-8 form
    with replacing(target) as file:
        file.write(page)
    return target


def render(run: RunFolder) -> str:
    """The page as text."""
    metrics, evaluations = run.read_metrics(), run.read_eval()
    trajectories = collect_trajectories(run, sorted({row["step"] for row in evaluations}))
    headline = summary.headline(evaluations)
    found = incidents(run.read_alarms())
    data = {
        "metrics": series(metrics),
        "evaluations": [] if headline is None else headline.curve,
        "decoding": None if headline is None else headline.decoding,
        "trajectories": trajectories,
        "alarms": [dataclasses.asdict(item) for item in found],
        "rolled_back": taken_back(run.read_rolled_back(), found, series),
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(percent=summary.percent, number=summary.number)
    script = _script()
    return environment.get_template("template.html.jinja").render(
        facts=summary.facts(run, metrics),
        headline=headline,
        table=summary.table(evaluations),
        alarms=[*story(found), *summary.alarms(metrics)],
        incidents=found,
        rolled_back=bool(data["rolled_back"]),
        settings=list(summary.flat(run.config)),
        trajectories=trajectories,
        has_metrics=bool(metrics),
        style=Markup(_asset("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=embedded_json(data),
        version=__version__,
        format_version=VERSION,
        written=time.strftime("%Y-%m-%d %H:%M", time.localtime()),
    )


def embedded_json(value: Any) -> Markup:
    """JSON that may stand inside a script element: no character of it can end the element or a line.

    >>> str(embedded_json("</script>\\u2028&"))
    '"\\\\u003c/script\\\\u003e\\\\u2028\\\\u0026"'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: U+2028 and surrogates are escaped
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def series(metrics: list[Row]) -> Row:
    """Columns for the charts: ``{"step": [...], "train/reward": [...], ..., "every": steps in one point}``."""
    every = -(-len(metrics) // MAX_POINTS) or 1
    buckets = [metrics[start : start + every] for start in range(0, len(metrics), every)]
    keys = dict.fromkeys(key for row in metrics for key in row if key != "step")  # a dict keeps the order
    columns = {key: [_mean(bucket, key) for bucket in buckets] for key in keys}
    return {"every": every, "step": [bucket[-1]["step"] for bucket in buckets], **columns}


def _mean(bucket: list[Row], key: str) -> float | None:
    values = [value for row in bucket if (value := summary.real(row.get(key))) is not None]
    return float(f"{sum(values) / len(values):.5g}") if values else None


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _script() -> str:
    return '"use strict";\n' + "\n".join(_asset(name) for name in _SCRIPTS) + "\nstart();\n"
