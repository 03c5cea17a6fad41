"""Activation memory by arithmetic, against what PyTorch holds."""

import pytest
import torch
import torch.nn.functional as F
from live_tensors import LiveTensors

from models.accounting import activation_memory
from models.config import ModelConfig
from models.transformer import Transformer
from training.engines.recompute import recompute

BATCH = 6
SIZES = {"num_layers": 3, "width": 64, "num_heads": 4, "context": 40, "vocab_size": 97}
MODELS = {
    "gpt2": {"family": "gpt2"},
    "llama": {"family": "llama"},
    "grouped": {"family": "llama", "num_kv_heads": 2, "mlp_width": 224},
    "post-norm with dropout": {"family": "gpt1", "dropout": 0.1},
    "normalised heads": {"family": "qwen3", "head_width": 32, "num_kv_heads": 1},
    "experts": {"family": "mixtral", "expert_width": 96},
    "gated shared experts": {
        "family": "qwen2_moe", "num_experts": 4, "experts_per_token": 2, "expert_width": 48,
        "num_shared_experts": 2,
    },
    "latent": {
        "family": "deepseek_v2", "head_width": 16, "rope_width": 8, "value_width": 24, "latent_width": 32,
        "query_latent_width": 48,
        "num_experts": 4, "experts_per_token": 2, "expert_width": 48, "mlp_width": 128,
    },
}  # fmt: skip


def build(changes, policy="none"):
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**{**SIZES, **changes}))
    if policy != "none":
        recompute(model.blocks.values(), policy)
    return model


def held(model, *, autocast=False):
    """Bytes that a forward leaves behind for the backward, without the head's and the casts of weights."""
    tokens = torch.randint(0, 97, (BATCH, 40))
    with LiveTensors() as live, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        hidden = model.hidden(tokens)
        memory = live.live_bytes
        if autocast:
            memory -= sum(2 * p.numel() for name, p in model.blocks.named_parameters() if p.ndim > 1)
    assert hidden.requires_grad
    return memory


def expected(config, *, value=4, policy="none"):
    """Blocks and last norm: the head's part without its logits."""
    memory = activation_memory(config, BATCH, bytes_per_value=value, policy=policy)
    return memory.blocks + memory.head - BATCH * 40 * 97 * 12


@pytest.mark.parametrize("policy", ["none", "selective", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_what_blocks_keep_is_what_autograd_holds(name, policy):
    """A plan would promise that a micro-batch fits which does not."""
    model = build(MODELS[name], policy)
    assert held(model) == pytest.approx(expected(model.config, policy=policy), rel=0.04)


@pytest.mark.parametrize("name", ["gpt2", "llama", "grouped"])
def test_autocast_keeps_what_is_counted(name):
    """Half the bytes per value is not half the memory: the residual stream and the norms stay float32."""
    model = build(MODELS[name])
    assert held(model, autocast=True) == pytest.approx(expected(model.config, value=2), rel=0.04)


@pytest.mark.parametrize("policy", ["none", "selective", "full"])
def test_the_peak_of_a_step_is_that_of_the_plan(policy):
    """Recomputation and the loss would not be planned for, and these are what a step dies of."""
    model = build({"family": "llama", "tie_embeddings": False}, policy)
    tokens = torch.randint(0, 97, (BATCH, 40))
    with LiveTensors() as live:
        F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten(), reduction="none").sum().backward()
    gradients = sum(4 * p.numel() for p in model.parameters())
    planned = activation_memory(model.config, BATCH, bytes_per_value=4, policy=policy).peak
    in_flight = 3 * 4 * tokens.numel() * model.config.hidden_width
    assert planned < live.peak_bytes < planned + gradients + in_flight


def test_recomputing_more_keeps_less_and_chunks_divide_the_logits():
    config = ModelConfig(family="llama", num_layers=32, width=4096, num_heads=32, vocab_size=32_000)
    none, selective, full = (
        activation_memory(config, 1, bytes_per_value=2, policy=p) for p in ("none", "selective", "full")
    )
    assert none.blocks > selective.blocks > full.blocks == 32 * 1024 * 4096 * 4
    assert none.recomputed == 0 < selective.recomputed < full.recomputed
    logits, head = 12 * 1024 * 32_000, 4 * 4096 * 32_000
    chunked = activation_memory(config, 1, bytes_per_value=2, num_chunks=2)
    assert none.head - chunked.head == logits // 2 - (head + head - logits // 2 * 2 // 3)
    chunked = activation_memory(config, 8, bytes_per_value=2, num_chunks=2)
    assert 8 * none.head - chunked.head == 8 * logits // 2 - head
