"""Results as people read them: tables and short texts. What is shown is what `--json` holds."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from seedbed.progress import human_bytes, human_count, human_time
from training.goodput import account, told_saves


def cell(column: str, value: Any) -> str:
    """One value of a table, in the units of its column."""
    if value is None:
        return "-"
    if column == "bytes" or column.endswith("_bytes"):
        return human_bytes(value)
    if column in ("time", "started"):
        return f"{datetime.fromtimestamp(value).astimezone():%Y-%m-%d %H:%M}"
    if column in ("goodput", "mfu_full", "mfu_causal"):
        return f"{value:.0%}"
    if column.endswith("_flops"):
        return f"{value / 1e12:.3g} TFLOP/s"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def table(rows: Iterable[dict[str, Any]], columns: Sequence[str], title: str = "") -> Any:
    """A table of dictionaries; a column that no row has is left out."""
    from rich import box
    from rich.table import Table

    rows = list(rows)
    shown = [column for column in columns if any(row.get(column) is not None for row in rows)]
    view = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in shown:
        numeric = all(isinstance(row.get(column), int | float | None) for row in rows)
        view.add_column(column.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        view.add_row(*[cell(column, row.get(column)) for column in shown])
    return view


def group(*parts: Any) -> Any:
    """Several tables or texts, one under the other; text is never read as markup."""
    from rich.console import Group
    from rich.text import Text

    return Group(*[Text(part) if isinstance(part, str) else part for part in parts if part])


def measured_text(plan: dict[str, Any]) -> str:
    """Predicted beside measured, empty before a run has ended."""
    measured = plan.get("measured")
    if not measured:
        return ""
    predicted = plan["predicted"]
    lines = ["predicted and measured:"]
    for label, before, after, show in (
        ("tokens/s", predicted["tokens_per_s"], measured["tokens_per_s"], human_count),
        (
            "memory per rank",
            plan["memory_bytes_per_device"]["total"],
            measured["memory_bytes"],
            human_bytes,
        ),
        ("checkpoint", plan["checkpoint_bytes"], measured["checkpoint_bytes"], human_bytes),
    ):
        if before and after:
            lines.append(
                f"  {label}: {show(before)} predicted, {show(after)} measured ({after / before:.2f}x)"
            )
    return "\n".join(lines)


def dataset_view(report: dict[str, Any]) -> Any:
    """A data set: splits, drops, lengths, documents."""
    splits = [{"split": name, **figures} for name, figures in report["splits"].items()]
    drops = [{"dropped because": reason, "documents": count} for reason, count in report["drops"].items()]
    buckets = sorted(
        {
            (row["from_tokens"], row["below_tokens"])
            for rows in report["length_histogram"].values()
            for row in rows
        }
    )
    lengths = [
        {"tokens": f"{low:,} to {high - 1:,}"}
        | {
            name: sum(row["documents"] for row in rows if row["from_tokens"] == low)
            for name, rows in report["length_histogram"].items()
        }
        for low, high in buckets
    ]
    changed = [
        {"kept, but": what, "documents": report[key]}
        for key, what in (
            ("edited", "lines were filtered out"),
            ("replaced", "bytes that are not text were replaced"),
            ("repeated_ids", "an earlier document has the same id"),
        )
        if report[key]
    ]
    tokenizer = report["tokenizer"]
    samples = [
        f"--- {s['split']}: {s['id']} ({s['tokens']:,} tokens)\n{s['text']}" for s in report["samples"]
    ]
    return group(
        f"{report['path']}  digest {report['digest'][:16]}",
        table(splits, ("split", "documents", "tokens", "utf8_bytes", "bytes_per_token")),
        table(drops, ("dropped because", "documents")) if drops else "",
        table(changed, ("kept, but", "documents")) if changed else "",
        f"tokenizer: {tokenizer['kind']} of {tokenizer['vocab_size']:,} entries",
        table(lengths, ("tokens", *report["splits"]), "documents by length"),
        *samples,
    )


def eval_view(result: dict[str, Any]) -> Any:
    """Scores with intervals, baselines on the same bytes beside them."""
    parts: list[Any] = [f"{result['run']} at step {result['step']}"]
    for task, score in result["tasks"].items():
        if task == "preferences":
            from evals.preferences import described

            parts.append(described(score))
            continue
        if "num_items" in score:
            parts.append(_task_view(task, score))
            parts += [view(score[name]) for name, view in PROBES.items() if name in score]
            continue
        baselines = [{"name": row["label"], **row} for row in score["baselines"]]
        rows = [{**score, "name": "this checkpoint"}, *({**row, "name": row["label"]} for row in baselines)]
        title = f"{task}: {score['documents']:,} documents, {score['utf8_bytes']:,} bytes"
        parts.append(table(rows, ("name", "value", "low", "high"), title))
    for task, rows in result.get("history", {}).items():
        parts.append(table(rows, ("step", "value", "low", "high"), f"{task}, step by step"))
    for task, one in result.get("comparisons", {}).items():
        parts.append(f"{task}, against {result['compared_with']['run']}: {one['text']}")
    return group(*parts, *(f"written: {file}" for file in result["files"]))


def probe_view(result: dict[str, Any]) -> Any:
    """Of each probe its modes, with both intervals."""
    parts: list[Any] = [f"{result['run']} at step {result['step']}"]
    for name, found in result["probes"].items():
        rows = [
            {"name": metric, **one, "over seeds": " to ".join(f"{end:.3f}" for end in one["over_seeds"])}
            for metric, one in found["metrics"].items()
        ]
        if found["most_frequent"] is not None:
            rows.append({"name": "most frequent answer", "value": found["most_frequent"]})
        left_out = f", {n:,} left out (unknown labels, too long)" if (n := found["num_left_out"]) else ""
        title = f"{name}: {found['num_items']:,} items{left_out}, {found['num_train']:,} to learn from"
        parts.append(table(rows, ("name", "value", "low", "high", "over seeds"), title))
        for mode, one in found.get("comparisons", {}).items():
            ends = f"[{one['low']:+.3f}, {one['high']:+.3f}]" if one["low"] is not None else "no interval"
            parts.append(
                f"{name}, {mode}, against {found['against']}: {one['value']:+.3f} {ends}, {one['verdict']}"
            )
    return group(*parts, *(f"written: {file}" for file in result["files"]))


def contest_view(result: dict[str, Any]) -> Any:
    """Shares of wins, ratings, and how far the judge can be believed."""
    rates = [{**one, **one.get("rate", {})} for one in result["win_rates"]]
    columns = ("first", "second", "value", "low", "high", "wins", "ties", "losses", "failed")
    title = f"share of {result['prompts']:,} prompts' answers that the first wins, ties half"
    parts: list[Any] = [table(rates, columns, title)]
    parts += [f"{one['first']}, {one['second']}: {one['refused']}" for one in rates if "refused" in one]
    ratings = result["ratings"]
    if "refused" in ratings:
        parts.append(f"no ratings: {ratings['refused']}")
    else:
        rows = [{"run": name, **one} for name, one in ratings.items()]
        parts.append(table(rows, ("run", "elo", "low", "high"), "ratings (their mean is 1000)"))
    if result["likert"]:
        rows = [{"run": name, **one, **one.get("mean", {})} for name, one in result["likert"].items()]
        parts.append(table(rows, ("run", "value", "low", "high", "rated", "failed"), "rated from 1 to 5"))
    if result["agreement"]:
        share, kappa = (result["agreement"][name] for name in ("share", "kappa"))
        parts.append(
            f"the judge agrees with the checker of Python in {share['value']:.3f} "
            f"[{share['low']:.3f}, {share['high']:.3f}] (kappa {kappa['value']:.3f})"
        )
    return group(*parts)


def _task_view(task: str, score: dict[str, Any]) -> Any:
    """The result of a task file, and what was counted on the way."""
    counts = {"duplicate": "num_duplicates", "cut to fit": "num_cut", "not judged": "num_failed"}
    told = [f"{score['num_items']:,} items"]
    told += [f"{score[key]} {name}" for name, key in counts.items() if score.get(key)]
    title = f"{task}: {score['unit']}, {', '.join(told)}"
    rows = [{"name": name.replace("_", " "), **row} for name, row in score.get("metrics", {}).items()]
    return table(rows or [{"name": "this checkpoint", **score}], ("name", "value", "low", "high"), title)


def _robustness_view(found: dict[str, Any]) -> Any:
    rows = [
        {"questions": name, **found[key]}
        for key, name in (
            ("clean", "as they are"),
            ("mean", "changed, on average"),
            ("worst", "each at its worst"),
        )
    ]
    for name, one in found["by_perturbation"].items():
        rows.append({"questions": name.replace("_", " "), **one["after"], "verdict": one["verdict"]})
    return table(rows, ("questions", "value", "low", "high", "verdict"), f"{found['metric']} under changes")


def _contamination_view(found: dict[str, Any]) -> Any:
    counts = ", ".join(f"{count:,} {state}" for state, count in found["counts"].items())
    rows = [
        {"which": name, **found[key]}
        for key, name in (("all", "all"), ("clean", "not in the training text"), ("overlapping", "in it"))
        if found[key]
    ]
    return table(rows, ("which", "items", "value", "low", "high"), f"{found['metric']}, {counts}")


def _distribution_view(found: dict[str, Any]) -> Any:
    if "refused" in found:
        return f"no comparison of sources: {found['refused']}"
    names = {"inside": "trained on", "outside": "not trained on", "difference": "the latter less the former"}
    rows = [{"sources": label, **found[key]} for key, label in names.items()]
    title = f"{found['metric']} by source, {found['share_outside']:.0%} of the items not trained on"
    return table(rows, ("sources", "value", "low", "high"), title)


PROBES = {
    "robustness": _robustness_view,
    "contamination": _contamination_view,
    "distribution": _distribution_view,
}
"""Parts of a result that not every one has."""


def run_view(run: dict[str, Any]) -> Any:
    """One run."""
    facts = {key: value for key, value in run["summary"].items() if value is not None}
    shares, times, costs = (facts.pop(name) for name in ("time_shares", "time_by_cause", "save_costs"))
    rows = [{"what": key.replace("_", " "), "value": cell(key, value)} for key, value in facts.items()]
    rows += [
        {"what": f"time {key.replace('_', ' ')}", "value": f"{value:.2%}"} for key, value in shares.items()
    ]
    if told := account(times):
        rows.append({"what": "wall time", "value": f"{human_time(times['wall'])}: {told}"})
    if told := told_saves(costs):
        rows.append({"what": "saves", "value": told})
    if shares:
        rows.append(
            {
                "what": "time communicating",
                "value": "beside the backward; --profile tells",
            }
        )
    changed = [{"setting": k, "recipe": v[0], "this run": v[1]} for k, v in run["difference"].items()]
    return group(
        table(rows, ("what", "value")),
        table(changed, ("setting", "recipe", "this run"), "settings that differ from the recipe")
        if changed
        else "",
        table(run["checkpoints"], ("step", "path"), "checkpoints") if run["checkpoints"] else "",
        table(run["events"], ("time", "kind", "message"), "last events"),
        measured_text(run["plan"]),
    )


def comparison_view(value: dict[str, Any]) -> Any:
    """Runs side by side."""
    columns = (
        "name",
        "state",
        "step",
        "tokens",
        "loss",
        "val_loss",
        "val_bits_per_byte",
        "tokens_per_s",
        "goodput",
    )
    settings = [{"setting": key, **values} for key, values in value["differences"].items()]
    names = [run["name"] for run in value["runs"]]
    return group(
        table(value["runs"], columns),
        table(settings, ("setting", *names), "settings that differ")
        if settings
        else "all settings are equal",
    )


def doctor_view(value: dict[str, Any]) -> Any:
    """Checks, and how to mend what failed."""
    marks = {"ok": "ok", "warning": "warning", "failed": "FAILED"}
    rows = [{**check, "state": marks[check["state"]]} for check in value["checks"]]
    fixes = [
        f"{check['name']}: {check['fix']}"
        for check in value["checks"]
        if check["state"] != "ok" and check["fix"]
    ]
    return group(table(rows, ("state", "name", "detail")), "\n".join(fixes))


def demo_text(value: dict[str, Any]) -> str:
    """What the demonstration showed."""
    lines = [
        "",
        f"bits per byte on {value['documents']:,} held-out files ({human_bytes(value['utf8_bytes'])}):",
    ]
    width = max(len(row["name"]) for row in value["table"])
    for row in value["table"]:
        interval = f"  [{row['low']:.3f}, {row['high']:.3f}]" if row.get("low") is not None else ""
        lines.append(f"  {row['name']:<{width}}  {row['bits_per_byte']:.3f}{interval}")
    lines += [
        "",
        f"worker killed: {value['killed']}; the run healed itself: {value['restarts']} restart(s), "
        f"goodput {value['goodput']:.0%}",
        f"sample:\n{value['sample']}",
        "",
        f"report: {value['report']}",
        f"done in {human_time(value['seconds'])}",
    ]
    return "\n".join(lines)
