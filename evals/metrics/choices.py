"""Choosing by likelihood: the model never says which answer it takes, the likeliest counts.

Longer choices are less likely, so what is compared is, by name:

    (no suffix)      log p(choice | question)
    _per_byte        the same per UTF-8 byte, _per_token per token (Gao 2021, "Multiple choice normalization")
    _unconditional   log p(choice | question) - log p(choice | no question): what the question adds (Brown et
                     al. 2020, section 2.4; Holtzman et al. 2021, "Surface form competition")

Beside each accuracy stands the probability of the right choice, the softmax of what is compared. Choices
that are exactly as likely share the item, so that a model which knows nothing has the accuracy of chance,
wherever the right answers stand.

Shapes: C choices of an item, N items.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from evals.calibration import expected_error_statistic
from evals.intervals import Array, Statistic, ratio_of
from evals.metrics.base import Item, Metric, mean_metric

Compared = Callable[[Item], Array]


def _array(item: Item, key: str) -> Array:
    return np.asarray(item[key], dtype=np.float64)


def _raw(item: Item) -> Array:
    return _array(item, "log_likelihoods")


def _per_byte(item: Item) -> Array:
    return _raw(item) / np.maximum(1, _array(item, "choice_bytes"))


def _per_token(item: Item) -> Array:
    return _raw(item) / np.maximum(1, _array(item, "choice_tokens"))


def _unconditional(item: Item) -> Array:
    return _raw(item) - _array(item, "unconditional")


COMPARED: dict[str, tuple[Compared, tuple[str, ...]]] = {
    "": (_raw, ("log_likelihoods", "gold")),
    "_per_byte": (_per_byte, ("log_likelihoods", "gold", "choice_bytes")),
    "_per_token": (_per_token, ("log_likelihoods", "gold", "choice_tokens")),
    "_unconditional": (_unconditional, ("log_likelihoods", "gold", "unconditional")),
}


def gold_of(item: Item) -> list[int]:
    """The numbers of the right choices."""
    gold = item["gold"]
    return [int(one) for one in gold] if isinstance(gold, list | tuple) else [int(gold)]


def choice_accuracy(compared_C: Array, gold: Sequence[int]) -> float:
    """1 when a right choice is the best one; of several that are as good, the share that is right."""
    best = np.flatnonzero(compared_C == compared_C.max())
    return float(np.isin(best, gold).mean())


def softmax(compared_C: Array) -> Array:
    """Probabilities of the choices, were one of them what follows."""
    weights_C = np.exp(compared_C - compared_C.max())
    return weights_C / weights_C.sum()


def choice_probability(compared_C: Array, gold: Sequence[int]) -> float:
    """Of the right choices together."""
    return float(softmax(compared_C)[list(gold)].sum())


def brier_score(probabilities_C: Array, gold: Sequence[int]) -> float:
    """Squared distance of the probabilities from the truth, 0 to 2 (Brier 1950)."""
    truth_C = np.zeros(len(probabilities_C))
    truth_C[list(gold)] = 1 / len(gold)
    return float(((probabilities_C - truth_C) ** 2).sum())


def _gold_bits_per_byte(items: Sequence[Item]) -> Statistic:
    """What the right choice costs: of several, the likeliest."""
    nats, sizes = [], []
    for item in items:
        best = max(gold_of(item), key=lambda number: item["log_likelihoods"][number])
        nats.append(-item["log_likelihoods"][best] / math.log(2))
        sizes.append(item["choice_bytes"][best])
    return ratio_of(nats, sizes, "log")


def confidence(items: Sequence[Item], probabilities: Compared) -> tuple[Array, Array]:
    """Of the choice that is taken: how sure the model was, and whether it was right."""
    found = [probabilities(item) for item in items]
    right = [choice_accuracy(one, gold_of(item)) for one, item in zip(found, items, strict=True)]
    return np.array([one.max() for one in found]), np.array(right)


def _ece(probabilities: Compared) -> Callable[[Sequence[Item]], Statistic]:
    return lambda items: expected_error_statistic(*confidence(items, probabilities))


def _accuracies(suffix: str) -> list[Metric]:
    compared, needs = COMPARED[suffix]
    smooth = f"choice_probability{suffix}"
    return [
        mean_metric(
            f"accuracy{suffix}",
            needs,
            lambda item: choice_accuracy(compared(item), gold_of(item)),
            smooth=smooth,
            unit="share right",
        ),
        mean_metric(
            smooth,
            needs,
            lambda item: choice_probability(compared(item), gold_of(item)),
            unit="probability of the right choice",
        ),
    ]


def of_choices(item: Item) -> Array:
    """Probabilities of choices, by likelihood."""
    return softmax(_raw(item))


def of_labels(item: Item) -> Array:
    """Probabilities of labels, as the item has them."""
    return _array(item, "probabilities")


CONFIDENCES: dict[str, Compared] = {"ece": of_choices, "ece_labels": of_labels}
"""What the calibration errors are of."""


def _probabilistic(suffix: str, of: Compared, needs: tuple[str, ...]) -> list[Metric]:
    brier = f"brier{suffix}"
    return [
        mean_metric(
            brier,
            needs,
            lambda item: brier_score(of(item), gold_of(item)),
            scale="plain",
            greater_is_better=False,
            unit="squared distance, 0 to 2",
        ),
        Metric(f"ece{suffix}", needs, _ece(of), False, brier, "expected calibration error"),
    ]


CHOICES = [
    *(metric for suffix in COMPARED for metric in _accuracies(suffix)),
    Metric(
        "gold_bits_per_byte",
        ("log_likelihoods", "gold", "choice_bytes"),
        _gold_bits_per_byte,
        greater_is_better=False,
        unit="bits per byte of the right choice",
    ),
    mean_metric(
        "prefers_first",
        ("log_likelihoods",),
        lambda item: float(item["log_likelihoods"][0] > item["log_likelihoods"][1]),
        unit="share that prefers the first choice to the second",
    ),
    *_probabilistic("", of_choices, ("log_likelihoods", "gold")),
    *_probabilistic("_labels", of_labels, ("probabilities", "gold")),
    mean_metric(
        "label_probability",
        ("probabilities", "gold"),
        lambda item: float(of_labels(item)[gold_of(item)].sum()),
        unit="probability of the right label",
    ),
]
