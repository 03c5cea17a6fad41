"""Answers that a model wrote: right or wrong, how much of them is right, and programs that pass.

Texts are compared as SQuAD does (Rajpurkar et al. 2016): in lower case, without punctuation, articles and
extra white space; of several references the best counts.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

from evals.metrics.base import Item, Metric, mean_metric

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Lower case; no ASCII punctuation, no English articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1 when the answer is one of the references."""
    return float(normalized(prediction) in {normalized(reference) for reference in references})


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over words, the best of the references."""
    return max(
        (_f1(normalized(prediction).split(), normalized(one).split()) for one in references), default=0.0
    )


def _f1(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        # No answer is right where none is wanted.
        return float(given == wanted)
    shared = (Counter(given) & Counter(wanted)).total()
    return 2 * shared / (len(given) + len(wanted))


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Probability that one of k samples passes, without bias, from n samples of which c passed: 1 - C(n-c, k)
    / C(n, k) (Chen et al. 2021, "Evaluating large language models trained on code", equation 1)."""
    if not 0 <= passed <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {samples} samples, {passed} of which passed")
    return 1 - math.comb(samples - passed, k) / math.comb(samples, k)


def pass_at(k: int) -> Metric:
    """The metric "pass@k"."""
    return mean_metric(
        f"pass@{k}",
        ("samples", "passed"),
        lambda item: pass_at_k(int(item["samples"]), int(item["passed"]), k),
        smooth="pass_share",
        unit="share of tasks",
    )


def _of_texts(item: Item) -> tuple[str, Sequence[str]]:
    return str(item["prediction"]), [str(one) for one in item["references"]]


TEXTS = ("prediction", "references")
ANSWERS = [
    mean_metric("right", ("right",), lambda item: float(item["right"]), unit="share of right answers"),
    mean_metric("exact_match", TEXTS, lambda item: exact_match(*_of_texts(item)), smooth="token_f1"),
    mean_metric("token_f1", TEXTS, lambda item: token_f1(*_of_texts(item))),
    pass_at(1),
    mean_metric(
        "pass_share",
        ("samples", "passed"),
        lambda item: item["passed"] / item["samples"],
        unit="share of samples",
    ),
]
