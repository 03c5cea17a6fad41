"""How a model knows where a token is: rotary angles, a sinusoidal table, ALiBi's slopes.

Shapes: B batch, T time, D width, H heads, R size of what is rotated.
"""

import math

import torch
from torch import Tensor

from models.config import ModelConfig

SINUSOIDAL_BASE = 10_000.0


def rotary_frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """[R/2]: radians per token, base^(-2i/R) for i in 0..R/2-1 (Su et al. 2021, RoFormer).

    Scaled, for longer contexts: `linear` divides all of them by a factor (Chen et al. 2023, position
    interpolation). `llama3` divides those that turn seldom in the original context, keeps those that
    turn often, and blends in between by the number of turns (Grattafiori et al. 2024, Llama 3.1);
    `yarn` blends by their index i instead (Peng et al. 2023, section 3.2).
    """
    R = config.rotary_size
    exponents = torch.arange(0, R, 2, device=device) / R
    frequencies = config.rope_base**-exponents
    if config.rope_scaling == "none":
        return frequencies
    lowered = frequencies / config.rope_factor
    if config.rope_scaling == "linear":
        return lowered
    slow, fast = config.rope_slow_turns, config.rope_fast_turns
    if config.rope_scaling == "llama3":
        turns = config.rope_original_context * frequencies / (2 * math.pi)
        kept = (turns - slow) / (fast - slow)
    else:
        first = max(math.floor(_index_of_turns(fast, config)), 0)
        last = min(math.ceil(_index_of_turns(slow, config)), R - 1)
        kept = 1 - (torch.arange(R // 2, device=device) - first) / max(last - first, 1e-3)
    return torch.lerp(lowered, frequencies, kept.clamp(0, 1))


def _index_of_turns(turns: float, config: ModelConfig) -> float:
    """The i whose frequency makes so many turns in the original context, as a fraction."""
    wavelength = config.rope_original_context / turns
    return config.rotary_size * math.log(wavelength / (2 * math.pi)) / (2 * math.log(config.rope_base))


def rotary_angles(positions: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of position x frequency.

    Positions are [T], giving [T, R], or [B, T], giving [B, 1, T, R]. The frequencies are laid out
    twice, for the half-rotation form. YaRN lengthens what is rotated, to sharpen attention.
    """
    angles = positions.float().unsqueeze(-1) * rotary_frequencies(config, positions.device)
    angles = torch.cat((angles, angles), dim=-1)
    if positions.dim() == 2:
        angles = angles.unsqueeze(1)
    if config.rotary_stretch != 1:
        return angles.cos() * config.rotary_stretch, angles.sin() * config.rotary_stretch
    return angles.cos(), angles.sin()


def rotate(x_BHTR: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x_i, x_{i+R/2}) by its angle."""
    cosines, sines = angles
    first, second = x_BHTR.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x_BHTR * cosines + turned * sines).to(x_BHTR.dtype)


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """[..., D]: sin(p / 10000^(2i/D)) at 2i and its cosine at 2i+1 (Vaswani et al. 2017, section 3.5)."""
    exponents = torch.arange(0, width, 2, device=positions.device) / width
    angles = positions.float().unsqueeze(-1) * SINUSOIDAL_BASE**-exponents
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def alibi_slopes(num_heads: int) -> list[float]:
    """What each head subtracts from a score per token of distance (Press et al. 2022, ALiBi).

    For a power of two, 2^(-8/H), 2^(-16/H), ...; for any other H, those of the power below it and
    then every second one of the power above it.
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2 ** (-4 * (head + 1) / power) for head in range(0, 2 * power, 2)]
    return slopes + between[: num_heads - power]
