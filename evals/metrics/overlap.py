"""How much of a reference's wording a text has: BLEU, chrF, ROUGE.

BLEU and chrF are of a corpus: counts of n-grams are summed over all items before anything is divided, so
that leaving a cluster out is a subtraction. BLEU's tokens, counts and formula are sacrebleu's, with its
defaults (13a, exponential smoothing), so that it can be compared with what others publish; chrF is equal to
sacrebleu's chrF2, and ROUGE to the package rouge-score without its stemmer (see the tests).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from evals.intervals import Array, Statistic, Summed
from evals.metrics.base import Item, Metric, mean_metric
from seedbed.errors import UsageError

CHRF_ORDER = 6
CHRF_BETA = 2
BLEU_ORDER = 4

_NOT_WORDS = re.compile(r"[^a-z0-9]+")


@cache
def _sacrebleu() -> Any:
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        raise UsageError("BLEU needs the package sacrebleu", "pip install 'seedbed[text-metrics]'") from None
    return BLEU(effective_order=True)


def bleu_counts(prediction: str, references: Sequence[str]) -> list[int]:
    """Shared n-grams of 1 to 4 words, all n-grams of the prediction, its length, the reference's."""
    found = _sacrebleu().sentence_score(prediction, list(references))
    return [*found.counts, *found.totals, found.sys_len, found.ref_len]


def bleu(sums: Array) -> Array:
    """Of sums of `bleu_counts`: 0 to 100 (Papineni et al. 2002)."""
    return np.apply_along_axis(_bleu_of, -1, sums)


def _bleu_of(sums: Array) -> float:
    numbers = [round(one) for one in sums.tolist()]
    shared, given = numbers[:BLEU_ORDER], numbers[BLEU_ORDER : 2 * BLEU_ORDER]
    found = _sacrebleu().compute_bleu(shared, given, numbers[-2], numbers[-1], smooth_method="exp")
    return float(found.score)


def chrf_counts(prediction: str, references: Sequence[str]) -> list[int]:
    """For runs of 1 to 6 characters, white space aside: those of the prediction, of the reference, and those
    they share; of several references, the one that gives the best score."""
    every = [_chrf_counts(_runs(prediction), _runs(one)) for one in references]
    return max(every, key=lambda counts: float(chrf(np.array(counts, dtype=np.float64))))


def _runs(text: str) -> list[Counter[str]]:
    characters = "".join(text.split())
    return [
        Counter(characters[first : first + size] for first in range(len(characters) - size + 1))
        for size in range(1, CHRF_ORDER + 1)
    ]


def _chrf_counts(given: list[Counter[str]], wanted: list[Counter[str]]) -> list[int]:
    counts = []
    for own, other in zip(given, wanted, strict=True):
        # A reference too short to have such runs says nothing against those of the prediction.
        counts += [own.total() if other else 0, other.total(), (own & other).total()]
    return counts


def chrf(sums: Array) -> Array:
    """Of sums of `chrf_counts`: F2 of precision and recall, each a mean over the sizes that both texts have.

    0 to 100 (Popović 2015, 2016).
    """
    given, wanted, shared = (sums[..., offset::3] for offset in range(3))
    there = (given > 0) & (wanted > 0)
    sizes = np.maximum(1, there.sum(axis=-1))
    precision = np.where(there, shared / np.maximum(1, given), 0).sum(axis=-1) / sizes
    recall = np.where(there, shared / np.maximum(1, wanted), 0).sum(axis=-1) / sizes
    under = CHRF_BETA**2 * precision + recall
    return 100 * (1 + CHRF_BETA**2) * precision * recall / np.where(under > 0, under, 1)


def rouge_n(prediction: str, references: Sequence[str], size: int) -> float:
    """F1 over runs of `size` words, the best of the references (Lin 2004)."""
    given = _word_runs(_words(prediction), size)
    return max((_rouge_n(given, _word_runs(_words(one), size)) for one in references), default=0.0)


def _rouge_n(given: Counter[tuple[str, ...]], wanted: Counter[tuple[str, ...]]) -> float:
    return _f1((given & wanted).total(), given.total(), wanted.total())


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """F1 over the longest common subsequence of words, the best of the references (Lin 2004)."""
    given = _words(prediction)
    every = (_words(reference) for reference in references)
    return max((_f1(longest_common(given, one), len(given), len(one)) for one in every), default=0.0)


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table at a time as the bits of one number
    (Hyyrö 2004, "Bit-parallel LCS-length computation revisited")."""
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    whole = (1 << len(first)) - 1
    row = whole
    for word in second:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & whole
    return len(first) - row.bit_count()


def _words(text: str) -> list[str]:
    return _NOT_WORDS.sub(" ", text.lower()).split()


def _word_runs(words: list[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[first : first + size]) for first in range(len(words) - size + 1))


def _f1(shared: int, given: int, wanted: int) -> float:
    return 2 * shared / (given + wanted) if shared else 0.0


def _texts(item: Item) -> tuple[str, list[str]]:
    return str(item["prediction"]), [str(one) for one in item["references"]]


def _table(rows: Iterable[list[int]]) -> Array:
    return np.array(list(rows), dtype=np.float64)


def _bleu(items: Sequence[Item]) -> Statistic:
    table_NK = _table(bleu_counts(*_texts(item)) for item in items)
    return Summed(table_NK, bleu, table_NK[:, -1], "percent")


def _chrf(items: Sequence[Item]) -> Statistic:
    table_NK = _table(chrf_counts(*_texts(item)) for item in items)
    return Summed(table_NK, chrf, table_NK[:, 1], "percent")


TEXTS = ("prediction", "references")
OVERLAP = [
    Metric("bleu", TEXTS, _bleu, unit="0 to 100"),
    Metric("chrf", TEXTS, _chrf, unit="0 to 100"),
    mean_metric("rouge_1", TEXTS, lambda item: rouge_n(*_texts(item), 1), unit="F1"),
    mean_metric("rouge_2", TEXTS, lambda item: rouge_n(*_texts(item), 2), unit="F1"),
    mean_metric("rouge_l", TEXTS, lambda item: rouge_l(*_texts(item)), unit="F1"),
]
