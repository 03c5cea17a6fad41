"""Sampling text from a model: `Engine` for many texts at once, `generate` for one."""

from models.generation.beams import Beam, beam_search
from models.generation.engine import BF16_TOLERANCE, Engine, generate
from models.generation.requests import Completion, Request, SamplingOptions, Token
from models.generation.rollout import RolloutEngine
from models.generation.voting import Vote, vote

__all__ = [
    "BF16_TOLERANCE",
    "Beam",
    "Completion",
    "Engine",
    "Request",
    "RolloutEngine",
    "SamplingOptions",
    "Token",
    "Vote",
    "beam_search",
    "generate",
    "vote",
]
