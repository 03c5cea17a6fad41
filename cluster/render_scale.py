"""Scaling laws, forecasts and designs as people read them."""

from collections.abc import Sequence
from typing import Any

from cluster.render import group, table
from seedbed.progress import human_count, human_time


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
    ways = value["alternatives"]["size_exponent"].items()
    lines.append("best size ~ compute^a: " + "; ".join(_exponent(name, one) for name, one in ways))
    if worth := value["repetition"]:
        lines.append(
            f"repetition, by {worth['runs']} runs beside these: R* of data {worth['data']:.3g} "
            f"{between(worth['data_interval'], '.3g')}, of parameters {worth['parameters']:.3g} "
            f"{between(worth['parameters_interval'], '.3g')}"
        )
    lines += [f"left out, {told}" for told in value["left_out"]]
    lines += [f"! {told}" for told in value["warnings"]]
    return "\n".join(lines)


def _exponent(name: str, found: dict[str, Any]) -> str:
    if "reason" in found:
        return f"by {name}: {found['reason']}"
    return f"by {name} {found['value']:.3f} {between(found['interval'], '.3f')}"


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


def design_text(value: dict[str, Any]) -> str:
    """Of `scale plan`."""
    cost = value["cost"]
    saved = 1 - cost["flops"] / cost["flops_one_by_one"]
    num_cells = sum(len(trunk["cells"]) for trunk in value["trunks"])
    lines = [
        f"{num_cells} cells on {len(value['trunks'])} trunks, "
        f"{'centred on ' + value['centred_on'] if value['budgets'] else 'a grid'}: "
        f"{cost['flops']:.3g} FLOP ({saved:.0%} less than one by one){_price(cost)}"
    ]
    for trunk in value["trunks"]:
        settings = trunk["settings"]
        lines.append(
            f"{trunk['name']}: width {settings['model.width']}, {settings['model.num_layers']} layers, "
            f"{settings['model.num_heads']} heads, lr {settings['optimizer.lr']:g}, "
            f"{trunk['tokens_per_step']:,} tokens per step, {trunk['flops_per_token']:.3g} FLOP per token"
            f"{_price(trunk['cost'])}"
        )
        lines += [
            f"  {cell['budget']:.3g} FLOP: {human_count(cell['tokens'])} tokens "
            f"({cell['tokens_per_parameter']:.3g} per parameter), steps {cell['branch_at']:,} to "
            f"{cell['steps']:,}, loss about {cell['predicted_loss']:.3f}"
            for cell in trunk["cells"]
        ]
    lines += [
        f"added where the law is known the least: {one['parameters']:.3g} parameters at {one['budget']:.3g} "
        f"FLOP, {one['deviation_of_log_loss']:.2%} of its loss"
        for one in value["added"]
    ]
    return "\n".join(lines)


def ladder_cost_text(cost: dict[str, Any]) -> str:
    """What a ladder will take, in a line."""
    how = f"{cost['runs']} runs, {cost['to_run']} to train, {cost['flops']:.3g} FLOP in all"
    if cost["seconds"] is None:
        return f"{how}; time not known"
    return (
        f"{how}: {human_time(cost['seconds'])}{_price(cost)} ({'; '.join(cost['basis']) or 'nothing to do'})"
    )


def ladder_text(value: dict[str, Any]) -> Any:
    """Of `scale run`: the cells, and what was forecast of them."""
    columns = ("cell", "N", "D", "C", "held out", "state", "loss", "message")
    rows = [{**row, "held out": "yes" if row["held_out"] else ""} for row in value["cells"]]
    lines = []
    if law := value["law"]:
        lines.append(
            f"L = {law['E']:.4g} + {law['A']:.4g} / N^{law['alpha']:.3f} "
            f"+ {law['B']:.4g} / D^{law['beta']:.3f}"
        )
    if value["forecasts"]:
        lines.append(ledger_text(value["forecasts"]))
    lines += [f"! {told}" for told in value["notes"]]
    if value["state"] == "planned":
        lines.append(ladder_cost_text(value["cost"]))
    else:
        lines += [f"table: {value['csv']}", f"report: {value['report']}" if value["report"] else ""]
    title = f"{value['ladder']}: {value['description'] or value['recipe']}"
    return group(title, table(rows, columns), "\n".join(line for line in lines if line))


def law_text(value: dict[str, Any]) -> str:
    """Of `scale law`."""
    lines = [f"{value['formula']}, {value['points']} points"]
    lines += [
        f"  {name:<8} {one['value']:.5g} {between((one['low'], one['high']), '.5g')}"
        if one["value"] is not None
        else f"  {name:<8} not finite"
        for name, one in value["parameters"].items()
    ]
    lines += [f"left out, {told}" for told in value["left_out"]]
    lines += [f"! {told}" for told in value["warnings"]]
    return "\n".join(lines)


def by_size_text(value: dict[str, Any]) -> Any:
    """Of `scale by-size`."""
    parts = []
    for title, rows in (("whose answers are preferred", "preference"), ("reward models", "accuracy")):
        shown = [
            {**row, "share": f"{row['value']:.3f} {between((row['low'], row['high']), '.3f')}"}
            for row in value[rows]
        ]
        columns = ("role", "against", "parameters", "comparisons", "share", "wins", "ties", "losses", "pairs")
        if shown:
            parts.append(table(shown, tuple(name for name in columns if name in shown[0]), title))
    return group(*parts, f"report: {value['report']}")


def _price(cost: dict[str, float | None]) -> str:
    if cost["device_hours"] is None:
        return ""
    price = "" if cost["price"] is None else f", price {cost['price']:,.2f}"
    return f", {cost['device_hours']:,.3g} device-hours{price}"
