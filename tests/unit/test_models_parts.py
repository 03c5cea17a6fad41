"""Positions, masks and attention by themselves, against their definitions."""

import math

import pytest
import torch

from models.attention import Attention
from models.config import ModelConfig
from models.masks import attention_mask
from models.positions import alibi_slopes, rotary_angles, rotary_frequencies, rotate, sinusoids

CPU = torch.device("cpu")


def config(**changes: object) -> ModelConfig:
    return ModelConfig(**{"family": "llama", "num_layers": 1, "width": 32, "num_heads": 4, **changes})


def test_rotation_keeps_lengths_and_scores_see_distances_alone():
    """Attention would depend on where in the window a text lies."""
    query, key = torch.randn(1, 1, 1, 8, dtype=torch.float64), torch.randn(1, 1, 1, 8, dtype=torch.float64)

    def turned(x: torch.Tensor, position: int) -> torch.Tensor:
        cosines, sines = rotary_angles(torch.tensor([position]), config())
        return rotate(x, (cosines.double(), sines.double()))

    assert turned(query, 37).norm().item() == pytest.approx(query.norm().item(), abs=1e-6)
    near = (turned(query, 9) * turned(key, 4)).sum().item()
    far = (turned(query, 109) * turned(key, 104)).sum().item()
    assert near == pytest.approx(far, abs=1e-5)
    assert near != pytest.approx((turned(query, 9) * turned(key, 5)).sum().item(), abs=1e-3)


def test_llama3_scaling_keeps_fast_turns_and_slows_slow_ones():
    """A context that was lengthened would be read with the wrong positions."""
    plain = rotary_frequencies(config(head_width=64), CPU)
    scaled = rotary_frequencies(
        config(head_width=64, rope_scaling="llama3", rope_factor=8.0, rope_original_context=1024), CPU
    )
    turns = 1024 * plain / (2 * math.pi)
    assert torch.equal(scaled[turns > 4], plain[turns > 4])
    torch.testing.assert_close(scaled[turns < 1], plain[turns < 1] / 8)
    between = (turns > 1) & (turns < 4)
    assert between.any()
    assert ((scaled < plain) & (scaled > plain / 8))[between].all()


def test_sinusoids_shift_by_a_rotation():
    """Vaswani et al. 2017: PE(p + k) is one linear map of PE(p), the same for every p."""
    table = sinusoids(torch.arange(50), 16).double()
    assert table[0].tolist() == [0, 1] * 8
    solution = torch.linalg.lstsq(table[:43], table[7:]).solution
    torch.testing.assert_close(table[:43] @ solution, table[7:], atol=1e-5, rtol=0)
    assert table[3, 2].item() == pytest.approx(math.sin(3 / 10_000 ** (2 / 16)), abs=1e-6)


def test_alibi_slopes_are_the_papers():
    assert alibi_slopes(8) == [2**-i for i in range(1, 9)]
    assert alibi_slopes(16)[:2] == pytest.approx([2**-0.5, 2**-1])
    # Twelve heads: those of eight, then every second one of sixteen.
    assert alibi_slopes(12) == pytest.approx([*alibi_slopes(8), *alibi_slopes(16)[:8:2]])


def test_alibi_subtracts_slope_times_distance():
    mask = attention_mask(config(positions="alibi", num_heads=8), 2, 3, CPU)
    assert mask is not None
    assert mask.shape == (1, 8, 3, 5)
    assert mask[0, 0].tolist() == [
        [-1.0, -0.5, 0.0, -math.inf, -math.inf],
        [-1.5, -1.0, -0.5, 0.0, -math.inf],
        [-2.0, -1.5, -1.0, -0.5, 0.0],
    ]


def test_a_window_counts_the_token_itself():
    mask = attention_mask(config(window=2), 1, 3, CPU)
    assert mask is not None
    assert mask[0, 0].int().tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert attention_mask(config(window=4), 0, 4, CPU) is None


def test_temperature_divides_the_scores():
    """softmax(q k / (tau sqrt(K))): a high one spreads attention, a low one makes it sharp."""
    x = torch.randn(1, 6, 32)
    cold, hot = Attention(config(attention_temperature=1.0)), Attention(config(attention_temperature=4.0))
    hot.load_state_dict(cold.state_dict())
    with torch.no_grad():
        cold.query.weight.div_(4)
    torch.testing.assert_close(cold(x), hot(x), atol=1e-6, rtol=0)


def test_grouped_queries_are_heads_that_share_their_keys():
    """Ainslie et al. 2023: with each group's head repeated, it is multi-head attention."""
    x = torch.randn(2, 7, 32)
    grouped, full = Attention(config(num_kv_heads=2)), Attention(config())
    state = grouped.state_dict()
    for name in ("key.weight", "value.weight"):
        state[name] = state[name].view(2, 8, 32).repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(state)
    torch.testing.assert_close(grouped(x), full(x), atol=1e-6, rtol=0)
