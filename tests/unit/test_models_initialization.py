"""Initial weights that no formula for a deviation gives: orthogonal matrices."""

import itertools

import numpy as np
import pytest
import torch

from models import initialization
from models.bert import initialization as bert_initialization
from models.bert.config import EncoderConfig
from models.bert.sizes import parameter_shapes as encoder_shapes
from models.config import ModelConfig
from models.heads import RewardModel
from models.initialization import initial_values, initialize
from models.sizes import parameter_shapes

CONFIG = ModelConfig(
    family="mixtral", num_layers=1, width=32, num_heads=4, num_kv_heads=2, num_experts=3, expert_width=48,
    vocab_size=40, initialization="orthogonal",
)  # fmt: skip


def whole(name, config=CONFIG, seed=0):
    shape = parameter_shapes(config)[name]
    return initial_values(name, 0, int(np.prod(shape)), config, seed).reshape(shape)


def distance_from_orthonormal(matrix):
    """Largest departure of the rows, or of the columns where these are fewer, from an orthonormal set."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    return np.abs(tall.T.astype(float) @ tall - np.eye(tall.shape[1])).max()


def test_matrices_are_orthogonal_and_experts_each_for_itself():
    """Saxe et al. 2014: a deep product of them neither grows nor dies out."""
    for name, shape in parameter_shapes(CONFIG).items():
        if len(shape) == 2 and name != "embedding.weight":
            assert distance_from_orthonormal(whole(name)) < 1e-6, name
        if len(shape) == 3:
            assert max(map(distance_from_orthonormal, whole(name))) < 1e-6, name
    gates = whole("blocks.0.mlp.experts.gate")
    assert not np.array_equal(gates[0], gates[1])
    assert whole("embedding.weight").std() == pytest.approx(0.02, rel=0.1)
    # Householder's method alone gives every matrix a first row of one sign.
    first = [whole("blocks.0.attention.query.weight", seed=seed)[0, 0] for seed in range(12)]
    assert len(set(np.sign(first))) == 2


@pytest.mark.parametrize("name", ["blocks.0.mlp.experts.down", "blocks.0.attention.key.weight"])
def test_whoever_holds_a_part_gets_that_part_of_the_same_matrix(name):
    """A run's first weights would depend on its number of ranks."""
    values = whole(name).ravel()
    cuts = [0, 5, 100, values.size // 2 + 7, values.size - 1, values.size]
    parts = [initial_values(name, a, b, CONFIG, 0) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), values)
    assert not np.array_equal(values, whole(name, seed=1).ravel())


def test_the_number_of_threads_changes_no_bit():
    """Ranks with other numbers of cores would start from other weights."""
    config = ModelConfig(num_layers=1, width=640, num_heads=4, vocab_size=9, initialization="orthogonal")
    drawn, num_threads = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            initialization._orthogonal.cache_clear()
            drawn.append(whole("blocks.0.attention.query.weight", config))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(num_threads)
    assert np.array_equal(*drawn)


@pytest.mark.parametrize("scheme", ["lecun", "xavier", "he", "orthogonal"])
def test_encoders_have_the_same_schemes(scheme):
    """What a scheme means would depend on the family."""
    config = EncoderConfig(
        num_layers=1, width=64, num_heads=2, vocab_size=50, head="pretraining", initialization=scheme
    )
    for name, shape in encoder_shapes(config).items():
        values = bert_initialization.initial_values(name, 0, int(np.prod(shape)), config, 0).reshape(shape)
        if name in ("embedding.weight", "positions.weight", "segments.weight"):
            assert values.std() == pytest.approx(0.02, rel=0.2)
        elif len(shape) == 2 and scheme == "orthogonal":
            assert distance_from_orthonormal(values) < 1e-6, name
        elif len(shape) == 2:
            num_out, num_in = shape
            variance = {"lecun": 1 / num_in, "xavier": 2 / (num_in + num_out), "he": 2 / num_in}[scheme]
            assert values.var() == pytest.approx(variance, rel=0.35 if min(shape) < 9 else 0.07), name


def test_a_reward_head_is_drawn_under_every_scheme():
    config = ModelConfig(num_layers=1, width=32, num_heads=4, vocab_size=9, initialization="orthogonal")
    model = RewardModel(config)
    initialize(model, config, seed=0)
    assert model.reward.weight.norm().item() == pytest.approx(1, abs=1e-6)
