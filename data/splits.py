"""Which documents are held out: whole groups of near-copies, by hash.

A group goes to the holdout when a number in [0, 1) that hangs on nothing but the seed and the
group's smallest document hash falls below the wanted fraction. So a document's side does not
depend on its place, its name or the documents around it, and copies never straddle the split.
Exceptions are made for groups that are too large, and for a side that would be empty.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seedbed.errors import DataError
from seedbed.randomness import uniform_of

# One group may fill at most this share of the wanted holdout; larger ones always train. Otherwise
# a single family of near-copies, or one very long document, could be most of the holdout, and the
# validation loss would be about it; and the holdout would exceed its share by far.
MAX_GROUP_SHARE_OF_HOLDOUT = 0.25


@dataclass(frozen=True)
class Split:
    """`held_out` [N] bool; `counts` is what the manifest says of the groups."""

    held_out: NDArray[np.bool_]
    counts: dict[str, int]


def split_groups(
    hashes: NDArray[np.uint8],
    sizes: NDArray[np.int64],
    groups: NDArray[np.int64],
    fraction: float,
    seed: int,
) -> Split:
    """Divide N documents with these SHA-256 hashes [N, 32], sizes in bytes and group labels.

    Both sides get at least one group; DataError when there are fewer than two.
    """
    labels, members = np.unique(groups, return_inverse=True)
    if len(labels) < 2:
        raise DataError(
            f"too few documents to hold any out: {len(hashes)} kept, in {len(labels)} group of near-copies",
            "give at least two documents that are not copies of each other, or set data.holdout_fraction=0",
        )
    smallest: dict[int, bytes] = {}
    for group, digest in zip(members.tolist(), map(bytes, hashes), strict=True):
        smallest[group] = min(digest, smallest.get(group, digest))
    draws = np.array([uniform_of(seed, "holdout", smallest[group].hex()) for group in range(len(labels))])
    group_bytes = np.bincount(members, weights=sizes).astype(np.int64)
    num_members = np.bincount(members)

    too_large = group_bytes > MAX_GROUP_SHARE_OF_HOLDOUT * fraction * int(sizes.sum())
    chosen = (draws < fraction) & ~too_large
    if not chosen.any():
        chosen[_least_bad(draws, group_bytes, too_large)] = True
    elif chosen.all():
        chosen[np.argmax(draws)] = False
    counts = {
        "groups": int((num_members > 1).sum()),
        "documents": int(num_members[num_members > 1].sum()),
        "largest": int(num_members.max()),
        "too_large_for_holdout": int((too_large & ~chosen).sum()),
    }
    return Split(chosen[members], counts)


def _least_bad(
    draws: NDArray[np.float64], group_bytes: NDArray[np.int64], too_large: NDArray[np.bool_]
) -> int:
    """The one group to hold out when the rule holds out none, as it may for few documents."""
    allowed = ~too_large
    if not allowed.any():
        allowed[:] = True
        allowed[np.argmax(group_bytes)] = False
    return int(np.argmin(np.where(allowed, draws, np.inf)))
