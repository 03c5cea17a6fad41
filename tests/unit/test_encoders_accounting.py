"""Activation memory of encoders and of T5 by arithmetic, against what PyTorch holds; and T5's cache."""

import pytest
import torch
import torch.nn.functional as F
from live_tensors import LiveTensors

from models import families
from models.bert.accounting import activation_memory
from models.bert.config import EncoderConfig
from models.t5.accounting import activation_memory as t5_activation_memory
from models.t5.accounting import kv_cache_bytes
from models.t5.config import T5Config
from models.t5.model import T5
from training.engines.recompute import recompute

BATCH, TIME, TARGETS, VOCABULARY = 6, 40, 24, 97
SIZES = {"num_layers": 3, "width": 64, "num_heads": 4, "context": TIME, "vocab_size": VOCABULARY}
PLAIN = {"dropout": 0.0, "attention_dropout": 0.0}
ENCODERS = {
    "bert": {"family": "bert"},
    "without dropout": {"family": "bert", **PLAIN},
    "relu": {"family": "roberta", "activation": "relu", "mlp_width": 96},
    "shared layers": {"family": "albert", "embedding_width": 24},
    "distilbert": {"family": "distilbert", "num_layers": 2},
}
T5S = {
    "t5": {"family": "t5", "num_decoder_layers": 2},
    "gated": {"family": "t5_v1_1"},
    "without dropout": {"family": "t5", "dropout": 0.0},
    "gated without dropout": {"family": "t5_v1_1", "dropout": 0.0, "mlp_width": 96},
}
every_policy = pytest.mark.parametrize("policy", ["none", "selective", "full"])


def build(config, policy="none"):
    torch.manual_seed(0)
    model = families.build(config).train()
    if policy != "none":
        recompute(model.blocks.values(), policy)
    return model


def tokens(length):
    return torch.randint(3, VOCABULARY, (BATCH, length))


def held(forward, *inputs, autocast=False):
    """Bytes that a forward leaves for the backward."""
    with LiveTensors() as live, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        hidden = forward(*inputs)
        memory = live.live_bytes
    assert hidden.requires_grad
    return memory


@every_policy
@pytest.mark.parametrize("name", ENCODERS)
def test_what_an_encoder_keeps_is_what_autograd_holds(name, policy):
    """A plan would promise that a micro-batch fits which does not."""
    model = build(EncoderConfig(**{**SIZES, **ENCODERS[name]}), policy)
    valid = torch.ones(BATCH, TIME, dtype=torch.bool)
    planned = activation_memory(model.config, BATCH, bytes_per_value=4, policy=policy).blocks
    # The last hidden states themselves are the head's to keep.
    hidden = 4 * BATCH * TIME * 64
    measured = held(model.hidden, tokens(TIME), None, valid) - hidden
    assert measured == pytest.approx(planned, rel=0.04)


@every_policy
@pytest.mark.parametrize("name", T5S)
def test_what_a_t5_keeps_is_what_autograd_holds(name, policy):
    config = T5Config(**{**SIZES, "head_size": 24, **T5S[name]})
    model = build(config, policy)
    valid = torch.ones(BATCH, TIME, dtype=torch.bool)
    planned = t5_activation_memory(config, BATCH, bytes_per_value=4, policy=policy, target_context=TARGETS)
    logits = 12 * BATCH * TARGETS * VOCABULARY

    def forward(sources, targets):
        return model.hidden(targets, model.encode(sources, valid), valid)

    measured = held(forward, tokens(TIME), tokens(TARGETS))
    assert measured == pytest.approx(planned.blocks + planned.head - logits, rel=0.04)


def casts_of_weights(model):
    """Bytes of the linear layers' weights in 16 bits, which autocast keeps until its end."""
    linears = (module for module in model.modules() if isinstance(module, torch.nn.Linear))
    return sum(2 * linear.weight.numel() for linear in linears)


@pytest.mark.parametrize("name", ["bert", "without dropout", "relu"])
def test_autocast_keeps_what_is_counted_for_an_encoder(name):
    """Half the bytes per value is not half the memory: unfused attention stays float32."""
    model = build(EncoderConfig(**{**SIZES, **ENCODERS[name], "pooler": "none"}))
    planned = activation_memory(model.config, BATCH, bytes_per_value=2).blocks
    measured = held(model.hidden, tokens(TIME), autocast=True) - 4 * BATCH * TIME * 64
    assert measured - casts_of_weights(model) == pytest.approx(planned, rel=0.04)


@pytest.mark.parametrize("name", T5S)
def test_autocast_keeps_what_is_counted_for_a_t5(name):
    config = T5Config(**{**SIZES, "head_size": 24, **T5S[name], "tie_embeddings": True})
    model = build(config)
    planned = t5_activation_memory(config, BATCH, bytes_per_value=2, target_context=TARGETS)
    logits = 12 * BATCH * TARGETS * VOCABULARY

    def forward(sources, targets):
        return model.hidden(targets, model.encode(sources))

    measured = held(forward, tokens(TIME), tokens(TARGETS), autocast=True) - casts_of_weights(model)
    assert measured == pytest.approx(planned.blocks + planned.head - logits, rel=0.04)


@every_policy
@pytest.mark.parametrize("head", ["pretraining", "token_classification"])
def test_the_peak_of_an_encoders_step_is_that_of_the_plan(head, policy):
    """Recomputation and the loss would not be planned for, and these are what a step dies of."""
    config = EncoderConfig(**SIZES, head=head, num_labels=50)
    model = build(config, policy)
    selected = torch.arange(BATCH * TIME).view(BATCH, TIME) % 4 == 0
    with LiveTensors() as live:
        if head == "pretraining":
            logits = model(tokens(TIME), None, None, selected)
            parts = [(logits.tokens, tokens(TIME)[selected]), (logits.pair, torch.ones(BATCH).long())]
        else:
            parts = [(model(tokens(TIME)).flatten(0, 1), tokens(TIME).flatten() % 50)]
        sum(F.cross_entropy(x, y, reduction="none").sum() for x, y in parts).backward()
    gradients = sum(4 * p.numel() for p in model.parameters())
    planned = activation_memory(config, BATCH, bytes_per_value=4, policy=policy, predicted=0.25)
    in_flight = 4 * BATCH * TIME * (3 * config.hidden_width + 3 * config.num_heads * TIME)
    assert 0.99 * planned.peak < live.peak_bytes < planned.peak + gradients + in_flight


@every_policy
def test_the_peak_of_a_t5s_step_is_that_of_the_plan(policy):
    config = T5Config(**{**SIZES, "head_size": 24, "tie_embeddings": False})
    model = build(config, policy)
    with LiveTensors() as live:
        logits = model(tokens(TIME), tokens(TARGETS), torch.ones(BATCH, TIME, dtype=torch.bool))
        loss = F.cross_entropy(logits.flatten(0, 1), tokens(TARGETS).flatten(), reduction="none")
        loss.sum().backward()
    gradients = sum(4 * p.numel() for p in model.parameters())
    planned = t5_activation_memory(config, BATCH, bytes_per_value=4, policy=policy, target_context=TARGETS)
    in_flight = 4 * BATCH * TIME * (3 * config.hidden_width + 3 * config.num_heads * TIME)
    assert 0.99 * planned.peak < live.peak_bytes < planned.peak + gradients + in_flight


def test_the_whole_sequence_is_in_the_head_only_where_it_is_predicted():
    """BERT would be planned with logits of every token, more than all else together."""
    config = EncoderConfig(num_layers=2, vocab_size=30_522, head="masked_lm")
    masked = activation_memory(config, 8, bytes_per_value=4).head
    every = activation_memory(config, 8, bytes_per_value=4, predicted=1.0).head
    assert every == pytest.approx(masked / 0.15, rel=0.01)
    assert activation_memory(config, 8, bytes_per_value=4, num_chunks=4).head < masked / 3
    for head in ("sequence_classification", "span", "multiple_choice", "reward", "none"):
        other = config.model_validate({**config.model_dump(), "head": head, "num_labels": 2})
        assert activation_memory(other, 8, bytes_per_value=4).head < masked / 10


@pytest.mark.parametrize("decoder_layers", [0, 2])
def test_a_t5s_cache_takes_the_bytes_that_were_planned(decoder_layers):
    """Generation would run out of the memory that was planned for it."""
    config = T5Config(**{**SIZES, "head_size": 24, "num_decoder_layers": decoder_layers})
    model = T5(config).eval()
    cache = model.new_cache()
    model.decode(tokens(TARGETS), model.encode(tokens(TIME)), cache=cache)
    held_bytes = sum(x.numel() * 4 for layer in cache for part in (layer.own, layer.memory) for x in part)
    assert held_bytes == kv_cache_bytes(config, BATCH, TARGETS, 4, source_tokens=TIME)
    assert kv_cache_bytes(config, 1, 10, 2) == 2 * kv_cache_bytes(config, 1, 10, 2, source_tokens=0)
