"""Sampling text from a model."""

from models.generation.sampler import SamplingOptions, generate

__all__ = ["SamplingOptions", "generate"]
