"""Connected components over arrays: which documents belong together when some pairs do.

No step runs once per pair in Python. Labels are the smallest members, so they do not depend on the
order in which pairs arrive.
"""

import numpy as np
from numpy.typing import NDArray


class Components:
    """N members, each alone at first."""

    def __init__(self, num_members: int) -> None:
        self.labels: NDArray[np.int64] = np.arange(num_members, dtype=np.int64)
        """[N]: for each member the smallest member of its component."""

    def join(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Join left[i] with right[i], for all i.

        In each round the larger label of every pair that is still apart is hung below the smallest that it
        meets, and chains are then shortened to one step (algorithm S of Liu and Tarjan 2019, "Simple
        concurrent labeling algorithms for connected components": O(log² N) steps, whatever the pairs).
        """
        labels = self.labels
        while True:
            left, right = labels[left], labels[right]
            apart = left != right
            if not apart.any():
                return
            left, right = left[apart], right[apart]
            np.minimum.at(labels, np.maximum(left, right), np.minimum(left, right))
            while not np.array_equal(above := labels[labels], labels):
                labels[:] = above
