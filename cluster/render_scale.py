"""Scaling laws, forecasts and designs as people read them."""

from collections.abc import Sequence
from typing import Any

from seedbed.progress import human_count


def between(ends: Sequence[float | None], spec: str = ".4g") -> str:
    """[low, high], where an end that is not known stands as a question mark."""
    low, high = ("?" if end is None else format(end, spec) for end in ends)
    return f"[{low}, {high}]"


def fit_text(value: dict[str, Any]) -> str:
    """Of `scale fit`."""
    ends, doubts = value["intervals"], value["identifiability"]
    lines = [
        f"L = E + A / N^alpha + B / D^beta, {value['points']} points, {value['objective_name']} "
        f"{value['objective']:.6g}; {value['agreeing']:.0%} of {value['starts']} starts agree"
    ]
    profiled = {one["name"]: one["interval"] for one in doubts["profiles"]}
    for name in ("E", "A", "alpha", "B", "beta"):
        line = f"  {name:<5} {value[name]:.5g}"
        if name in ends:
            line += f" {between(ends[name], '.5g')}, by profile {between(profiled[name], '.5g')}"
        lines.append(line)
    lines += [forecast_line(best) for best in value["optima"]]
    lines += [f"left out, {told}" for told in value["left_out"]]
    lines += [f"! {told}" for told in value["warnings"]]
    return "\n".join(lines)


def forecast_line(best: dict[str, Any]) -> str:
    """One budget or run in one line."""
    kind = "" if best["kind"] == "compute-optimal" else f" ({best['kind']})"
    sizes = f"{best['parameters']:.4g} parameters"
    per = f"{best['tokens_per_parameter']:.3g} tokens per parameter"
    if "parameters_interval" in best:
        sizes += f" {between(best['parameters_interval'], '.3g')}"
        per += f" {between(best['tokens_per_parameter_interval'], '.3g')}"
    line = (
        f"{best['compute']:.3g} FLOP{kind}: {sizes}, {best['tokens']:.4g} tokens, {per}, loss "
        f"{best['loss']:.4f} {between(best['loss_interval'], '.4f')}, of one run "
        f"{between(best['run_interval'], '.4f')}"
    )
    if best["kind"] == "serving-optimal":
        saved = 1 - best["total_compute"] / best["total_compute_of_compute_optimal"]
        line += (
            f"; with {human_count(best['served_tokens'])} tokens served {best['total_compute']:.3g} FLOP in "
            f"all, {saved:.1%} less"
        )
    if best["kind"] == "data-constrained":
        line += f"; {human_count(best['unique_tokens'])} unique tokens, seen {best['epochs']:.3g} times"
    return line


def forecasts_text(value: dict[str, Any]) -> str:
    """Of `scale forecast`."""
    lines = [forecast_line(one) for one in value["forecasts"]]
    lines += [f"! {told}" for told in value["notes"]]
    lines += [
        f"registered as {row['number']} at {row['time']}; keep its digest elsewhere: {row['digest']}"
        for row in value.get("registered", [])
    ]
    return "\n".join(lines)


def ledger_text(value: dict[str, Any]) -> str:
    """Of `scale score`."""
    lines = []
    for one in value["forecasts"]:
        name = f" {one['name']}" if one["name"] else ""
        line = (
            f"{one['number']}{name}, {one['registered']}: {one['parameters']:.3g} parameters, "
            f"{one['tokens']:.3g} tokens, loss {one['predicted']:.4f} {between(one['interval'], '.4f')}"
        )
        if one["loss"] is not None:
            within = {True: "within", False: "outside", None: "no interval"}[one["is_covered"]]
            line += f"; was {one['loss']:.4f} ({one['relative_error']:+.2%}), {within}"
        lines.append(line)
    if value["scored"]:
        low, high = value["coverage_interval"]
        lines.append(
            f"{value['covered']} of {value['scored']} within the 95 % interval: {value['coverage']:.0%} "
            f"[{low:.0%}, {high:.0%}]"
        )
    lines.append(f"every line follows from the one before it; the last digest is {value['head']}")
    return "\n".join(lines)
