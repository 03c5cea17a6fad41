"""Every metric by name."""

import re

from evals.metrics.answers import ANSWERS, pass_at
from evals.metrics.base import Metric
from evals.metrics.choices import CHOICES
from evals.metrics.labels import LABEL_METRICS
from evals.metrics.language import LANGUAGE
from evals.metrics.overlap import OVERLAP
from seedbed.errors import UsageError, did_you_mean

METRICS: dict[str, Metric] = {
    one.name: one for one in (*LANGUAGE, *CHOICES, *ANSWERS, *OVERLAP, *LABEL_METRICS)
}


def metric(name: str) -> Metric:
    """The metric of a name; "pass@k" for any k. UsageError for another one."""
    if name in METRICS:
        return METRICS[name]
    if match := re.fullmatch(r"pass@([1-9]\d*)", name):
        return pass_at(int(match[1]))
    raise UsageError(
        f"there is no metric {name!r}",
        did_you_mean(name, METRICS, f"the metrics are: {', '.join(METRICS)}"),
    )


def with_companions(names: list[str]) -> list[Metric]:
    """The metrics of these names, each followed by its smooth companion."""
    found: dict[str, Metric] = {}
    for name in names:
        one = metric(name)
        found[one.name] = one
        if one.smooth:
            found.setdefault(one.smooth, metric(one.smooth))
    return list(found.values())
