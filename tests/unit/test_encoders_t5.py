"""T5: sizes, relative positions, cached decoding; and against transformers' own, on random weights."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from models.hf_encoders import export_encoder, import_encoder
from models.hf_encoders.t5 import T5Format
from models.t5.config import T5Config
from models.t5.initialization import initial_values
from models.t5.model import T5, shift_right
from models.t5.positions import distance_buckets
from models.t5.sizes import count_parameters, flops_per_token, parameter_shapes
from seedbed.errors import DataError

TINY = {
    "num_layers": 2,
    "num_decoder_layers": 3,
    "width": 16,
    "num_heads": 3,
    "head_size": 4,
    "vocab_size": 50,
}
FAMILY = pytest.mark.parametrize("family", ["t5", "t5_v1_1"])


def tiny(family="t5", **changes):
    torch.manual_seed(0)
    return T5(T5Config(family=family, **{**TINY, **changes})).eval()


def batch(seed, *shape):
    return torch.randint(1, 50, shape, generator=torch.Generator().manual_seed(seed))


@FAMILY
def test_shapes_by_arithmetic_are_those_of_the_built_model(family):
    """Plans and checkpoints would speak of a model that does not exist."""
    model = tiny(family)
    assert parameter_shapes(model.config) == {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert count_parameters(model.config).total == sum(p.numel() for p in model.parameters())
    assert {n for n in parameter_shapes(model.config) if ".blocks." in n} == {
        f"{prefix}.{n}" for prefix, block in model.blocks.items() for n, _ in block.named_parameters()
    }


def test_t5_small_has_the_published_number_of_parameters():
    assert count_parameters(T5Config(vocab_size=32128)).total == 60_506_624


@FAMILY
def test_flops_agree_with_torchs_own_counter(family):
    """Utilisation would be reported against the wrong amount of work."""
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny(family)
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model(batch(0, 1, 24), batch(1, 1, 24))
    counted = flops_per_token(model.config, context=24)
    assert 3 * counter.get_total_flops() / 24 == pytest.approx(counted.full, rel=1e-6)
    assert counted.full > counted.causal


def test_near_distances_have_their_own_bucket_and_far_ones_share_the_last():
    """Positions would be confused, or the table's rows would go unused."""
    one_sided = distance_buckets(-torch.arange(300), 32, 128, two_sided=False)
    assert one_sided[:16].tolist() == list(range(16))
    assert one_sided[16:128].diff().min() == 0
    assert set(one_sided.tolist()) == set(range(32))
    assert set(one_sided[128:].tolist()) == {31}
    assert distance_buckets(torch.arange(1, 9), 32, 128, two_sided=False).tolist() == [0] * 8
    both = distance_buckets(torch.arange(-300, 301), 32, 128, two_sided=True)
    assert torch.equal(both[301:], both[:300].flip(0) + 16)


@FAMILY
@torch.no_grad()
def test_padding_changes_nothing_that_is_valid_and_no_target_sees_a_later_one(family):
    """A sentence would be translated otherwise beside a longer one."""
    model = tiny(family)
    sources, targets = batch(0, 2, 14), batch(1, 2, 7)
    valid = torch.arange(14) < torch.tensor([[14], [9]])
    logits = model(sources.masked_fill(~valid, 0), targets, valid)
    torch.testing.assert_close(logits[1:], model(sources[1:, :9], targets[1:]), atol=1e-5, rtol=0)
    assert not torch.allclose(model(sources, targets)[1], logits[1], atol=1e-3)
    torch.testing.assert_close(model(sources, targets[:, :4], valid), logits[:, :4], atol=1e-5, rtol=0)


@FAMILY
@pytest.mark.parametrize("chunk", [1, 3])
@torch.no_grad()
def test_cached_decoding_equals_the_full_computation(family, chunk):
    """Generated text would come from another model than the trained one."""
    model = tiny(family)
    sources, targets = batch(0, 2, 14), batch(1, 2, 40)
    valid = torch.arange(14) < torch.tensor([[14], [9]])
    memory, cache = model.encode(sources, valid), model.new_cache()
    parts = [model.decode(part, memory, valid, cache) for part in targets.split(chunk, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(sources, targets, valid), atol=1e-5, rtol=0)


def test_initial_values_have_the_published_deviations_however_they_are_cut():
    """Scores, which nothing scales, would start far too large."""
    config, size = T5Config(width=64, num_heads=4, head_size=16, vocab_size=5000), 60_000
    for name, std in {
        "embedding.weight": 1.0,
        "encoder.blocks.0.attention.query.weight": 1 / math.sqrt(64 * 16),
        "encoder.blocks.0.attention.key.weight": 1 / math.sqrt(64),
        "decoder.blocks.0.cross.output.weight": 1 / math.sqrt(64),
        "decoder.blocks.0.mlp.down.weight": 1 / math.sqrt(256),
    }.items():
        whole = initial_values(name, 0, size, config, seed=1)
        parts = [initial_values(name, a, b, config, seed=1) for a, b in itertools.pairwise((0, 7, 999, size))]
        assert whole.tolist() == [number for part in parts for number in part.tolist()]
        assert whole.std() == pytest.approx(std, rel=0.02)
    assert set(initial_values("decoder.blocks.1.cross_norm.weight", 0, 9, config, 1)) == {1.0}


def reference(**changes):
    """A model of transformers with random weights, and scores that are neither flat nor all on one token."""
    import transformers

    sizes = {
        "vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 3,
        "num_heads": 3, "decoder_start_token_id": 0, "dropout_rate": 0.0,
    }  # fmt: skip
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**{**sizes, **changes})).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator) * 0.3
            parameter.copy_(values + 1 if "norm.weight" in name else values)
    return model


V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


def untied(model):
    """With an output head of its own, as the published T5 1.1."""
    values = torch.randn(50, 16, generator=torch.Generator().manual_seed(3)) * 0.3
    model.lm_head.weight = torch.nn.Parameter(values)
    return model


@pytest.mark.parametrize(
    ("changes", "change"), [({}, None), (V1_1, None), (V1_1, untied)], ids=["t5", "tied 1.1", "1.1"]
)
def test_loss_gradients_and_round_trip_equal_the_reference(changes, change, tmp_path):
    """A published model would compute or learn something else here, or come back changed."""
    theirs = reference(**changes)
    theirs = change(theirs) if change else theirs
    theirs.save_pretrained(tmp_path / "theirs")
    config, read, notices = import_encoder(tmp_path / "theirs")
    assert notices == []
    tensors = dict(read)
    ours = T5(config).eval()
    ours.load_state_dict(tensors)
    # Longer than the largest distance that is told apart.
    sources, labels = batch(0, 2, 150), batch(1, 2, 9)
    valid = torch.arange(150) < torch.tensor([[150], [90]])

    expected = theirs(input_ids=sources, attention_mask=valid.long(), labels=labels)
    logits = ours(sources, shift_right(labels, config.start_id), valid)
    torch.testing.assert_close(logits, expected.logits, atol=1e-5, rtol=0)
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert abs(loss.item() - expected.loss.item()) < 1e-5
    loss.backward()
    expected.loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    names = T5Format().names(config)
    assert len(gradients) == len(names)
    for name, parameter in ours.named_parameters():
        expected_gradient = gradients[names[name]]
        # Some are near 10, where the last bits of float32 are larger, and depend on the CPU.
        atol = 1e-5 * max(1.0, expected_gradient.abs().max().item())
        torch.testing.assert_close(parameter.grad, expected_gradient, atol=atol, rtol=0, msg=name)
        assert parameter.grad.abs().max() > 1e-5, name

    export_encoder(config, tensors, tmp_path / "ours")
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    after = load_file(tmp_path / "ours" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again, told = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(told.values()), told
    with torch.no_grad():
        opened = again.eval()(input_ids=sources, attention_mask=valid.long(), labels=labels).logits
    torch.testing.assert_close(opened, expected.logits, atol=1e-5, rtol=0)


def test_copies_of_the_embedding_in_old_files_are_named_and_others_refused(tmp_path):
    """A head that is not the embedding would be dropped without a word."""
    reference().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    held = load_file(path)
    held["encoder.embed_tokens.weight"] = held["shared.weight"].clone()
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    held[unused] = torch.ones(32, 3)
    save_file(held, path)
    (told,) = import_encoder(tmp_path).notices
    assert told.endswith(f": {unused}, encoder.embed_tokens.weight")
    held["lm_head.weight"] = torch.ones(50, 16)
    save_file(held, path)
    with pytest.raises(DataError, match=r"untied.*: lm_head\.weight"):
        import_encoder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_buckets": 30}, "divisible by 4"),
        ({"max_distance": 16}, "must be more than"),
        ({"vocab_size": 8, "start_id": 8}, "outside model.vocab_size"),
    ],
)
def test_buckets_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        T5Config(**{**TINY, **changes})
