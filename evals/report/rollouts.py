"""What a policy that learns from rewards came to: its reward, how far it went for it, and whether it is worth
it."""

import numpy as np

from evals.report.charts import Chart, Series, line_chart
from evals.report.record import RunRecord
from evals.report.series import column


def rollouts_section(record: RunRecord) -> str:
    """Of the iterations; empty for other runs."""
    rows = record.of_kind("rollouts")
    if not rows:
        return ""
    steps, root = column(rows, "step"), np.sqrt(np.maximum(column(rows, "kl"), 0))
    worth = [
        Series(label, steps, column(rows, name), tone)  # type: ignore[arg-type]
        for label, name, tone in (("reward", "reward", "train"), ("gold", "gold", "validation"))
        if np.isfinite(column(rows, name)).any()
    ]
    charts = [
        Chart("Reward", "mean of an iteration", worth),
        Chart(
            "Reward by distance",
            "mean of an iteration",
            [Series(one.label, root, one.y, one.tone, "dots") for one in worth],
            x_name="root of the divergence from the reference, in nats",
            note="Where gold falls while the reward rises, the reward is over-optimised (Gao et al. 2023).",
        ),
        Chart("Divergence", "nats an answer", [Series("from the reference", steps, column(rows, "kl"))]),
        Chart(
            "Length",
            "tokens an answer",
            [Series("mean", steps, column(rows, "answer_tokens"))],
            from_zero=True,
        ),
    ]
    train = record.of_kind("train")
    for title, unit, name in (
        ("Entropy", "nats a token", "entropy"),
        ("Clipped", "share of tokens", "clipped"),
        ("Value loss", "mean over tokens", "value_loss"),
    ):
        values = column(train, name)
        if np.isfinite(values).any():
            charts.append(
                Chart(title, unit, [Series(title.lower(), column(train, "step"), values)], from_zero=True)
            )
    return f'<h2>Rollouts</h2><div class="charts">{"".join(line_chart(chart) for chart in charts)}</div>'
