"""A supervised run as the front door shows it: announced, mirrored, summed up, reported."""

from typing import Any

from cluster.output import note
from cluster.render_plan import plan_text
from cluster.run_summary import summarize_run
from cluster.tracking import mirrored
from evals.report import write_report
from seedbed.files import write_json
from training.metrics import read_events, surviving_rows
from training.plan import measure
from training.run_directory import RunDirectory, read_json
from training.supervisor import Supervisor


def announce(run: RunDirectory, notices: list[str]) -> None:
    """Print the plan and what a user should know before the run starts."""
    note(plan_text(read_json(run.plan_path)))
    for text in notices:
        note(f"! {text}")
    note(f"run directory: {run.path}")


def run_supervised(supervisor: Supervisor, run: RunDirectory) -> dict[str, Any]:
    """Run to the end with the tracker beside it; the report is written however the run ends."""
    with mirrored(run):
        try:
            supervisor.supervise()
        except BaseException:
            _sum_up_quietly(run)
            raise
        summary = summarize(run)
        return {**summary, "report": str(write_report(run.path))}


def _sum_up_quietly(run: RunDirectory) -> None:
    """Plan and report of a run that did not finish: how it ended matters more than the page about it."""
    try:
        summarize(run)
        write_report(run.path)
    except Exception as error:
        note(f"! no report was written: {error}")


def summarize(run: RunDirectory) -> dict[str, Any]:
    """What a run came to so far; stores the measured figures in its plan."""
    rows, events = surviving_rows(run.path), read_events(run.path)
    baselines = [event["baseline_bytes"] for event in events if "baseline_bytes" in event]
    plan = measure(read_json(run.plan_path), rows, baselines[-1] if baselines else 0)
    write_json(run.plan_path, plan)
    return {"run": str(run.path), **summarize_run(run.path), "plan": plan}
