"""From logits to tokens: all rows of a batch at once, each by a uniform number of its own.

The token is the one in whose share of [0, 1) the uniform falls (inverse of the cumulative distribution). A
row's token depends on its own logits and uniform alone.

Shapes: B rows, V vocabulary, C candidates, the likeliest first.
"""

import torch
from torch import Tensor

from models.generation.requests import SamplingOptions
from seedbed.errors import DataError

NUM_CANDIDATES = 1024
"""For top-p: the likeliest tokens that are looked at before a row is sorted whole."""


def sample(logits_BV: Tensor, options: SamplingOptions, uniforms: list[float]) -> Tensor:
    """[B]: the token that each of `uniforms`, in [0, 1), picks from its row's truncated distribution."""
    if options.temperature == 0:
        return logits_BV.argmax(-1)
    scores_BV = logits_BV.float() / options.temperature
    uniforms_B = torch.tensor(uniforms, dtype=torch.float64, device=logits_BV.device)
    if options.top_k or options.top_p < 1:
        return _sample_sorted(scores_BV, options, uniforms_B)
    weights_BV = scores_BV.softmax(-1)
    if options.min_p:
        weights_BV = weights_BV * (weights_BV >= options.min_p * weights_BV.amax(-1, keepdim=True))
    return _pick(weights_BV, uniforms_B)


def choose(logits_V: Tensor, options: SamplingOptions, uniform: float) -> int:
    """`sample` for a single row."""
    return int(sample(logits_V[None], options, [uniform]))


def log_probs_of(logits_BV: Tensor, tokens_B: Tensor, temperature: float) -> Tensor:
    """[B]: log softmax(logits / temperature) at each row's token; temperature 0 counts as 1."""
    # A softmax goes over a row in one way; a sum over one row alone would be divided among threads.
    scores_BV = logits_BV / temperature if temperature not in (0, 1) else logits_BV
    log_probs_BV = scores_BV.float().log_softmax(-1)
    return log_probs_BV.gather(-1, tokens_B[:, None]).squeeze(-1)


def _sample_sorted(scores_BV: Tensor, options: SamplingOptions, uniforms_B: Tensor) -> Tensor:
    V = scores_BV.shape[-1]
    num_candidates = min(V, options.top_k or NUM_CANDIDATES)
    best_BC, order_BC = scores_BV.log_softmax(-1).topk(num_candidates)
    if options.top_k:
        return _pick_sorted(best_BC.softmax(-1), order_BC, options, uniforms_B)
    weights_BC = best_BC.exp()
    tokens_B = _pick_sorted(weights_BC, order_BC, options, uniforms_B)
    # Only a row that is flatter than most needs all of its tokens sorted.
    flat_B = weights_BC.sum(-1) < options.top_p
    if num_candidates < V and flat_B.any():
        sorted_BV, order_BV = scores_BV[flat_B].sort(descending=True, stable=True)
        tokens_B[flat_B] = _pick_sorted(sorted_BV.softmax(-1), order_BV, options, uniforms_B[flat_B])
    return tokens_B


def _pick_sorted(
    weights_BC: Tensor, order_BC: Tensor, options: SamplingOptions, uniforms_B: Tensor
) -> Tensor:
    """Truncate by top-p and min-p, then pick."""
    before_BC = weights_BC.cumsum(-1, dtype=torch.float64) - weights_BC
    kept_BC = (before_BC < options.top_p) & (weights_BC >= options.min_p * weights_BC[:, :1])
    return order_BC.gather(-1, _pick(weights_BC * kept_BC, uniforms_B)[:, None]).squeeze(-1)


def _pick(weights_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """[B]: where the sum of weights passes `uniform` times their total; never where the weight is 0."""
    cumulative_BV = weights_BV.cumsum(-1, dtype=torch.float64)
    total_B1 = cumulative_BV[:, -1:]
    # Rounding must not lead past the last token that has a weight.
    target_B1 = torch.minimum(uniforms_B[:, None] * total_B1, total_B1.nextafter(torch.zeros_like(total_B1)))
    picked_B = torch.searchsorted(cumulative_BV, target_B1, right=True).squeeze(-1)
    if bool((picked_B == weights_BV.shape[-1]).any()):
        raise DataError(
            "the model's output holds numbers that are not finite: there is no next token",
            "generate with a sound checkpoint, and a temperature and penalties near 1",
        )
    return picked_B
