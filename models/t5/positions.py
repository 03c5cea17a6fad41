"""T5's relative positions: a learned number per head and bucket of distances, added to attention scores.

Shapes: H heads, Q queries, M keys.
"""

import math

import torch
from torch import Tensor, nn

from models.t5.config import T5Config


def distance_buckets(distance: Tensor, num_buckets: int, max_distance: int, *, two_sided: bool) -> Tensor:
    """Bucket of each distance, key position - query position, of any shape (Raffel et al. 2020, section 2.1).

    Exact when near, then logarithmic up to `max_distance`, from where on all share the last. Two-sided, half
    of the buckets are for keys after the query; else such keys fall in bucket 0.
    """
    later = torch.zeros_like(distance)
    if two_sided:
        num_buckets //= 2
        later = (distance > 0).long() * num_buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    num_exact = num_buckets // 2
    # In fp32 and rounded towards zero, as in the published models: an edge elsewhere is another bucket.
    share = (distance.clamp(min=1).float() / num_exact).log() / math.log(max_distance / num_exact)
    far = num_exact + (share * (num_buckets - num_exact)).long()
    return later + torch.where(distance < num_exact, distance, far.clamp(max=num_buckets - 1))


class RelativeBias(nn.Module):
    """b[bucket(j - i), head], for query i and key j."""

    def __init__(self, config: T5Config, *, two_sided: bool) -> None:
        super().__init__()
        self.config, self.two_sided = config, two_sided
        self.table = nn.Embedding(config.num_buckets, config.num_heads)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """[1, H, Q, M] for positions [Q] and [M]."""
        distance_QM = keys[None, :] - queries[:, None]
        buckets_QM = distance_buckets(
            distance_QM, self.config.num_buckets, self.config.max_distance, two_sided=self.two_sided
        )
        return self.table(buckets_QM).permute(2, 0, 1).unsqueeze(0)
