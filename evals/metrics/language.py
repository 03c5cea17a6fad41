"""How many bits a text costs, and perplexities: one sum over another, each over all items.

Bits per byte and word do not depend on the tokenizer, the perplexity of a token does. A perplexity is the
exponential of the mean; a mean of perplexities would be ruled by the worst item.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from evals.intervals import Array, Statistic, Summed, quotient
from evals.metrics.base import Item, Metric


def _bits_per(sums: Array) -> Array:
    return quotient(sums) / math.log(2)


def _perplexity(sums: Array) -> Array:
    return np.exp(quotient(sums))


def _metric(name: str, count: str, finish: Callable[[Array], Array], unit: str) -> Metric:
    def of(items: Sequence[Item]) -> Statistic:
        table_NK = np.array([[item["nats"], item[count]] for item in items], dtype=np.float64)
        return Summed(table_NK, finish, table_NK[:, 1], "log")

    return Metric(name, ("nats", count), of, greater_is_better=False, unit=unit)


LANGUAGE = [
    _metric("bits_per_byte", "utf8_bytes", _bits_per, "bits per byte"),
    _metric("bits_per_word", "words", _bits_per, "bits per word"),
    _metric("byte_perplexity", "utf8_bytes", _perplexity, "perplexity of a byte"),
    _metric("word_perplexity", "words", _perplexity, "perplexity of a word"),
    _metric("perplexity", "tokens", _perplexity, "perplexity of a token"),
]
