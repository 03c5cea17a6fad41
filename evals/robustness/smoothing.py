"""A certificate that no change of k tokens, whichever they are, turns a classifier's answer.

The classifier that is certified votes: it sees the text with all but a few tokens masked, many times, each
time with other ones kept. After Levine and Feizi 2020 ("Robustness certificates for sparse adversarial
attacks by randomized ablation"), used for text by Zeng et al. 2021 ("Certified robustness to text adversarial
attacks by randomized [MASK]"): k changed tokens of T matter only where one of them is among the e that are
kept, which happens with probability

    delta(k) = 1 - C(T - k, e) / C(T, e)

so that no vote can move by more. An answer whose share of all votes is above 1/2 + delta(k) keeps its
majority.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from seedbed.randomness import generator
from seedbed.statistics import share_at_least


@dataclass(frozen=True)
class Certificate:
    """What the vote says, and how many changed tokens cannot turn it."""

    label: Hashable | None
    """None where the vote is too close to call."""
    share_at_least: float
    """Of all votes, with the confidence that was asked for."""
    radius: int
    """0 certifies no more than the vote itself; -1 goes with no label."""


def changed_votes(num_tokens: int, num_kept: int, num_changed: int) -> float:
    """delta(k): the share of votes that may see a change."""
    if not 0 < num_kept <= num_tokens or not 0 <= num_changed <= num_tokens:
        raise ValueError(f"{num_kept} kept and {num_changed} changed of {num_tokens} tokens")
    return 1 - math.comb(num_tokens - num_changed, num_kept) / math.comb(num_tokens, num_kept)


def radius(share: float, num_tokens: int, num_kept: int) -> int:
    """The most changed tokens that leave a label with this share of the votes more than half; -1 for none."""
    found = -1
    while found < num_tokens and share - changed_votes(num_tokens, num_kept, found + 1) > 0.5:
        found += 1
    return found


def certify(
    classify: Callable[[list[list[int]]], Sequence[Hashable]],
    tokens: Sequence[int],
    mask_id: int,
    *,
    num_kept: int,
    num_votes: int = 1000,
    num_to_choose: int = 100,
    error: float = 0.05,
    seed: int = 0,
) -> Certificate:
    """Sample votes and certify the label that they choose.

    The label comes from votes of its own, and the bound on its share from others (Cohen et al. 2019,
    "Certified adversarial robustness via randomized smoothing"): it is wrong with probability `error` at
    most.
    """
    draw = generator(seed, "smoothing", *tokens)

    def votes(count: int) -> Counter[Hashable]:
        masked = []
        for _ in range(count):
            kept = set(draw.choice(len(tokens), size=num_kept, replace=False).tolist())
            masked.append([token if place in kept else mask_id for place, token in enumerate(tokens)])
        return Counter(classify(masked))

    label, _ = votes(num_to_choose).most_common(1)[0]
    least = share_at_least(votes(num_votes)[label], num_votes, error)
    found = radius(least, len(tokens), num_kept)
    return Certificate(label if found >= 0 else None, least, found)
