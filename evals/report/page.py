"""RUN/report.html: the sections put together into one file that asks nothing of any network.

Whatever a model or a file name says is text here. Should some of it slip through as markup all the same, the
page's security policy still runs no script and loads nothing: only our own script and style sheet are
allowed, by their hashes.
"""

import base64
import hashlib
import time
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from evals.report.curves import curves_section
from evals.report.details import config_section, data_section, events_section, plan_section, samples_section
from evals.report.header import header_section
from evals.report.record import RunRecord, read_run
from evals.report.results import results_section
from evals.report.rewards import rewards_section
from evals.report.rollouts import rollouts_section
from evals.report.tasks import tasks_section
from seedbed import __version__
from seedbed.errors import UsageError
from seedbed.files import write_atomic


def write_report(run_dir: Path) -> Path:
    """Write RUN/report.html from the run's files as they are now, and return its path.

    Works at any time: a run that has just started, that is going on, or that failed.
    """
    if not (run_dir / "config.toml").is_file():
        raise UsageError(f"{run_dir} is not a run directory", "give the directory that `seedbed train` wrote")
    path = run_dir / "report.html"
    write_atomic(path, render(read_run(run_dir), time.time()))
    return path


def render(record: RunRecord, now: float) -> str:
    """The page, as of `now` (Unix time)."""
    sections = [
        header_section(record, now),
        results_section(record),
        tasks_section(record),
        rewards_section(record),
        rollouts_section(record),
        curves_section(record),
        samples_section(record),
        plan_section(record),
        data_section(record),
        config_section(record),
        events_section(record),
    ]
    return document(record.name, sections, f"from the files in {record.path}")


def document(title: str, sections: Sequence[str], origin: str) -> str:
    """A page that needs nothing else: sections are HTML, empty ones are left out."""
    style, script = _asset("report.css"), _asset("report.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    footer = f"Written by Seedbed {__version__} {origin}."
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)} · Seedbed</title><link rel="icon" href="data:,">'
        f"<style>{style}</style></head>\n<body>\n"
        + "\n".join(filter(None, sections))
        + f"\n<footer>{escape(footer)}</footer>\n<script>{script}</script>\n</body></html>\n"
    )


def _asset(name: str) -> str:
    return resources.files("evals.report").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """The name by which a Content-Security-Policy allows one inline element."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
