"""FOLDER/report.html of a pipeline: its stages, what they took beside the estimates, and what came out."""

import base64
import hashlib
import time
from html import escape
from pathlib import Path
from typing import Any

from cluster.pipelines.lineage import chain_of
from seedbed import __version__
from seedbed.files import write_atomic
from seedbed.progress import human_bytes, human_time
from training.mirror import flatten

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{text-align:left;padding:.25rem .8rem .25rem 0;"
    "border-bottom:1px solid #ccc;vertical-align:top}td.n{text-align:right}code{font-size:.9em}"
)
MOST_FIGURES = 24


def write_report(folder: Path, record: dict[str, Any]) -> Path:
    """Write the page of a pipeline's record; it asks nothing of any network and runs no script."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    name = escape(str(record["pipeline"]))
    body = [
        f"<h1>{name}: {escape(str(record['state']))}</h1><p>{escape(str(record['description']))}</p>",
        _stages(record),
        *(_results(stage, value) for stage, value in record["stages"].items()),
        _lineages(record),
        f"<footer>Written by Seedbed {__version__}, {time.strftime('%Y-%m-%d %H:%M:%S')}.</footer>",
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{name} · Seedbed</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(filter(None, body))
        + "\n</body></html>\n"
    )
    write_atomic(folder / "report.html", page)
    return folder / "report.html"


def _stages(record: dict[str, Any]) -> str:
    rows = []
    for name, stage in record["stages"].items():
        estimate = stage.get("estimate") or {}
        rows.append(
            [
                name,
                ", ".join(record["needs"].get(name, [])),
                stage["state"],
                str(stage.get("digest", ""))[:12],
                _time(stage.get("seconds")),
                _time(estimate.get("seconds")),
                human_bytes(stage["bytes"]) if stage.get("bytes") else "",
                stage.get("message", ""),
            ]
        )
    heads = ("stage", "made of", "state", "artefact", "took", "estimated", "size", "")
    return _table(heads, rows)


def _results(name: str, stage: dict[str, Any]) -> str:
    flat = flatten(stage.get("result") or {})
    figures = [[key, text] for key, text in flat.items() if _is_figure(text)][:MOST_FIGURES]
    return f"<h2>{escape(name)}</h2>{_table(('figure', 'value'), figures)}" if figures else ""


def _lineages(record: dict[str, Any]) -> str:
    """Of each artefact that nothing else is made of."""
    used = {needed for needs in record["needs"].values() for needed in needs}
    ends = [(n, s) for n, s in record["stages"].items() if n not in used and s["state"] == "done"]
    rows = []
    for name, stage in ends:
        chain = [f"{entry['stage']} {entry['digest'][:8]}" for entry in chain_of(Path(stage["out"]))]
        rows.append([name, " ← ".join(chain)])
    return f"<h2>lineage</h2>{_table(('artefact', 'is made of'), rows)}" if rows else ""


def _table(heads: tuple[str, ...], rows: list[list[Any]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = ("".join(f"<td>{escape(str(text))}</td>" for text in row) for row in rows)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _is_figure(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _time(seconds: float | None) -> str:
    return "" if seconds is None else human_time(seconds)
