"""A plan as people read it."""

from typing import Any

from seedbed.progress import human_bytes, human_count, human_time


def plan_text(plan: dict[str, Any]) -> str:
    """The plan in a few lines."""
    memory, batch, predicted = plan["memory_bytes_per_device"], plan["batch"], plan["predicted"]
    counts = plan["parameters"]
    used = counts.get("active", counts["total"])
    active = f"{human_count(used)} used by a token, " if used != counts["total"] else ""
    parts = ", ".join(
        f"{name} {human_bytes(size)}" for name, size in memory.items() if name != "total" and size
    )
    lines = [
        f"plan: {human_count(counts['total'])} parameters ({active}"
        f"{human_count(counts['non_embedding'])} without embeddings), "
        f"{human_count(plan['flops_per_token']['full'])} FLOPs per token "
        f"({human_count(plan['flops_per_token']['causal'])} causal)",
        f"  {human_count(plan['tokens'])} tokens in {plan['steps']:,} steps of {batch['tokens_per_step']:,}: "
        f"{batch['num_micro_batches']} micro-batches of {batch['micro_batch_size']} "
        f"on {batch['num_ranks']} rank(s), {plan['precision']} on {plan['device']}",
        f"  memory per rank {human_bytes(memory['total'])}: {parts}{_room(plan)}",
        f"  checkpoint {human_bytes(plan['checkpoint_bytes'])}, {plan['checkpoints_kept']} kept; "
        f"disk free {human_bytes(plan['disk_free_bytes'])}",
    ]
    if predicted["tokens_per_s"]:
        hours = human_time(predicted["hours"] * 3600)
        lines.append(f"  about {human_count(predicted['tokens_per_s'])} tokens/s, {hours}")
    if best := plan.get("compute_optimal"):
        lines.append(
            f"  {best['compute']:.3g} FLOP are best spent, by the law, on "
            f"{human_count(best['parameters'])} parameters and {human_count(best['tokens'])} tokens "
            f"({best['tokens_per_parameter']:.3g} each), loss {best['loss']:.4f}; as planned "
            f"{best['planned_loss']:.4f}"
        )
    if "machines" in plan:
        lines += _on_machines(plan)
    for title, rows in (("layouts", plan.get("layouts")), ("proposals", plan.get("proposals"))):
        if rows:
            lines += [f"  {title}:", *(f"    {_layout(row)}" for row in rows)]
    return "\n".join([*lines, *(f"! {text}" for text in plan.get("notices", []))])


def _room(plan: dict[str, Any]) -> str:
    machines = plan.get("machines")
    if not machines:
        return ""
    fits = "fits" if plan["fits"] else "does not fit"
    return f"; {fits} {human_bytes(machines['memory_bytes'])}"


def _on_machines(plan: dict[str, Any]) -> list[str]:
    """Speed, time and price on the devices of the plan."""
    machines, step, saves = plan["machines"], plan["step"], plan["saves"]
    devices = "this machine" if machines["name"] == "mine" else machines["name"]
    price = "" if plan["price"] is None else f", price {plan['price']:,.2f}"
    layer = ", ".join(f"{name[:-2]} {seconds * 1e3:.3g} ms" for name, seconds in step["layer"].items())
    return [
        f"  on {machines['devices']:,} x {devices} in {machines['nodes']:,} machine(s): "
        f"{human_count(plan['tokens_per_s_per_device'])} tokens/s each, MFU {plan['mfu_full']:.1%} "
        f"({plan['mfu_causal']:.1%} causal), {plan['device_hours']:,.1f} device-hours{price}",
        f"  step {step['total_s']:.3g} s: compute {step['compute_s']:.3g}, memory {step['memory_s']:.3g}, "
        f"communication {step['exposed_communication_s']:.3g} of {step['communication_s']:.3g} not hidden, "
        f"update {step['update_s']:.3g}; a layer, for each micro-batch: {layer}",
        f"  save every {saves['suggested_every_steps']:,} steps "
        f"({human_time(saves['suggested_every_s'])}) at a mean time to failure of {saves['mttf_h']:,.1f} h: "
        f"{saves['effective_share']:.1%} of the time is effective, {human_time(saves['wall_hours'] * 3600)} "
        "in all",
    ]


def _layout(row: dict[str, Any]) -> str:
    settings = " ".join(f"{name.split('.')[1]}={value}" for name, value in row["settings"].items())
    fits = "" if row["fits"] else ", does not fit"
    return (
        f"{settings}: {human_bytes(row['memory_bytes_per_device'])}{fits}, "
        f"{human_count(row['tokens_per_s'])} tokens/s"
    )
