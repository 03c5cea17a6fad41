"""Encoders against those of transformers, on random weights, and in and out of its format."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from models.bert.config import EncoderConfig
from models.bert.tasks import make_encoder
from models.hf_encoders import export_encoder, import_encoder
from models.hf_encoders.bert import FORMATS
from seedbed.errors import ConfigError, DataError

HEADS = [
    "Model",
    "ForPreTraining",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
]
PAIRS = [
    (family, head)
    for family in ("Bert", "Roberta", "Albert", "DistilBert")
    for head in HEADS
    if head != "ForPreTraining" or family in ("Bert", "Albert")
]


def reference(family, head, **changes):
    """A model of transformers with random weights, biases and gains."""
    import transformers

    sizes = {"vocab_size": 50, "max_position_embeddings": 20, "num_labels": 3}
    if family == "DistilBert":
        sizes |= {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 40}
    else:
        sizes |= {
            "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 40,
        }  # fmt: skip
    if family == "Albert":
        sizes |= {"embedding_size": 8, "num_hidden_groups": 2}
    if head in ("ForQuestionAnswering", "ForPreTraining"):
        sizes["num_labels"] = 2
    config = getattr(transformers, f"{family}Config")(**{**sizes, **changes})
    model = getattr(transformers, f"{family}{head}")(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator) * 0.3
            parameter.copy_(values + 1 if "norm.weight" in name.lower() else values)
    return model


def imported(folder):
    config, tensors, notices = import_encoder(folder)
    assert notices == []
    model = make_encoder(config).eval()
    model.load_state_dict(dict(tensors))
    return model


def inputs(family, head):
    tokens = torch.randint(3, 50, (2, 12), generator=torch.Generator().manual_seed(1))
    valid = torch.arange(12) < torch.tensor([[12], [8]])
    tokens = torch.where(valid, tokens, 1 if family == "Roberta" else 0)
    segments = (torch.arange(12) >= 6).long().expand(2, 12) if family in ("Bert", "Albert") else None
    if head == "ForMultipleChoice":
        choices = [tokens, (tokens + 7) % 46 + 3, (tokens + 11) % 46 + 3]
        tokens = torch.stack(choices, 1).masked_fill(~valid[:, None], 1 if family == "Roberta" else 0)
        valid = valid[:, None].expand(2, 3, 12)
        segments = None if segments is None else segments[:, None].expand(2, 3, 12)
    return tokens, segments, valid


@pytest.mark.parametrize(("family", "head"), PAIRS)
@torch.no_grad()
def test_outputs_equal_the_reference_and_the_round_trip_every_bit(family, head, tmp_path):
    """A published model would compute something else here, or come back changed."""
    theirs = reference(family, head)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = imported(tmp_path / "theirs")
    tokens, segments, valid = inputs(family, head)
    extra = {} if segments is None else {"token_type_ids": segments}
    expected = list(theirs(input_ids=tokens, attention_mask=valid.long(), **extra).values())
    given = ours(tokens, segments, valid)
    found = list(given) if isinstance(given, tuple) else [given]
    if head == "Model" and family != "DistilBert":
        found.append(ours.pool(given))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        seen = valid if head != "ForMultipleChoice" and a.shape[:2] == valid.shape else ...
        assert b[seen].abs().max() > 0.05
        torch.testing.assert_close(a[seen], b[seen], atol=1e-5, rtol=0)

    export_encoder(ours.config, ours.state_dict(), tmp_path / "ours")
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    after = load_file(tmp_path / "ours" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "Albert", "DistilBert"])
@torch.no_grad()
def test_the_reference_opens_what_is_exported(family, tmp_path):
    """An exported model would be of use to nobody."""
    name = family.lower()
    config = EncoderConfig(
        family=name, num_layers=2, width=16, num_heads=2, vocab_size=50, context=20,
        head="sequence_classification", num_labels=4, dropout=0.2, activation="relu",
    )  # fmt: skip
    ours = make_encoder(config).eval()
    export_encoder(config, ours.state_dict(), tmp_path)
    theirs, told = type(reference(family, "ForSequenceClassification")).from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(told.values()), told
    tokens, segments, valid = inputs(family, "ForSequenceClassification")
    extra = {} if segments is None else {"token_type_ids": segments}
    logits = theirs.eval()(input_ids=tokens, attention_mask=valid.long(), **extra).logits
    torch.testing.assert_close(ours(tokens, segments, valid), logits, atol=1e-5, rtol=0)
    again, _, notices = import_encoder(tmp_path)
    assert notices == []
    assert again == config.model_copy(update={"mlp_width": 64})


def test_loss_and_gradients_of_a_pretraining_step_equal_the_reference(tmp_path):
    """BERT would learn something else, though it computes the same."""
    theirs = reference("Bert", "ForPreTraining")
    theirs.save_pretrained(tmp_path)
    ours = imported(tmp_path)
    tokens, segments, valid = inputs("Bert", "ForPreTraining")
    selected = valid & (torch.arange(12) % 3 == 1)
    labels, pair = (tokens + 5) % 50, torch.tensor([0, 1])
    expected = theirs(
        input_ids=tokens, token_type_ids=segments, attention_mask=valid.long(),
        labels=labels.masked_fill(~selected, -100), next_sentence_label=pair,
    ).loss  # fmt: skip
    expected.backward()
    logits = ours(tokens, segments, valid, selected)
    loss = F.cross_entropy(logits.tokens, labels[selected]) + F.cross_entropy(logits.pair, pair)
    loss.backward()
    assert abs(loss.item() - expected.item()) < 1e-5
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    names = FORMATS["bert"].names(ours.config)
    assert len(gradients) == len(names)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[names[name]], atol=1e-5, rtol=0, msg=name)
        # A key's bias adds the same to all scores of a query, and so gets no gradient.
        assert name.endswith("key.bias") or parameter.grad.abs().max() > 1e-4, name


def saved(folder, family="Bert", head="ForMaskedLM", *, settings=(), tensors=None):
    """A folder of the reference, with some settings replaced, and tensors changed by a function."""
    reference(family, head).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | dict(settings)
    (folder / "config.json").write_text(json.dumps(config))
    if tensors:
        held = load_file(folder / "model.safetensors")
        tensors(held)
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_old_files_are_read_and_what_is_not_kept_is_named(tmp_path):
    """The published BERT, whose file is older than the present names, could not be read."""

    def age(held):
        for name in [name for name in held if "LayerNorm" in name]:
            held[name.replace(".weight", ".gamma").replace(".bias", ".beta")] = held.pop(name)
        held["bert.embeddings.position_ids"] = torch.arange(20)[None]
        held["cls.predictions.decoder.weight"] = held["bert.embeddings.word_embeddings.weight"].clone()
        held["cls.seq_relationship.weight"], held["cls.seq_relationship.bias"] = (
            torch.ones(2, 16),
            torch.ones(2),
        )
        held["bert.pooler.dense.weight"], held["bert.pooler.dense.bias"] = torch.ones(16, 16), torch.ones(16)

    new = import_encoder(saved(tmp_path / "new"))
    old = import_encoder(saved(tmp_path / "old", tensors=age))
    (told,) = old.notices
    assert told.endswith(": bert.embeddings.position_ids, cls.predictions.decoder.weight")
    # Its class says masked LM alone, but the file has the other head, too.
    assert old.config == new.config.model_copy(update={"head": "pretraining", "pooler": "tanh"})
    read = dict(old.tensors)
    assert all(torch.equal(tensor, read[name]) for name, tensor in new.tensors)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: t.pop("bert.encoder.layer.1.output.dense.bias"),
            r"missing: bert\.encoder\.layer\.1\.output",
        ),
        (lambda t: t.update(surprise=torch.ones(2)), "not of this architecture: surprise"),
        (
            lambda t: t.update({"cls.predictions.bias": torch.ones(7)}),
            r"another shape .*cls\.predictions\.bias \(7,\) for \(50,\)",
        ),
        (
            lambda t: t.update({"cls.predictions.decoder.weight": torch.ones(50, 16)}),
            r"untied.*: cls\.predictions\.decoder\.weight",
        ),
    ],
    ids=["missing", "extra", "shape", "untied"],
)
def test_tensors_that_do_not_fit_are_refused_by_name(change, said, tmp_path):
    """A model would be read in part, and nobody would know."""
    with pytest.raises(DataError, match=said):
        import_encoder(saved(tmp_path, tensors=change))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_type": "electra"}, "'electra'.*\n.*BertForMaskedLM"),
        ({"architectures": ["BertForNextSentencePrediction"]}, "BertForNextSentencePrediction"),
        ({"architectures": None}, "none named"),
        ({"is_decoder": True}, "is_decoder = True"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"hidden_act": "silu"}, "'silu'"),
        ({"hidden_size": 15}, "15 is not divisible"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_mean_another_model_are_refused(settings, said, tmp_path):
    """A model would be read as what it is not."""
    with pytest.raises(DataError, match=said):
        import_encoder(saved(tmp_path, settings=settings))


def test_what_is_passed_over_is_told(tmp_path):
    """A user would not know that the folder asked for more than was done."""
    folder = saved(tmp_path, settings={"auto_map": {"AutoModel": "code.Model"}, "hyper_mode": 3})
    code, keys = import_encoder(folder).notices
    assert "not run" in code
    assert keys.endswith(": hyper_mode")


def test_a_folder_without_safetensors_is_refused(tmp_path):
    """Opening a pickle would run a stranger's code."""
    saved(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model\.bin"):
        import_encoder(tmp_path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"family": "distilbert", "norm_eps": 1e-5}, r"model\.norm_eps = 1e-05"),
        ({"family": "bert", "num_groups": 1}, r"model\.num_groups = 1"),
        ({"family": "roberta", "head": "pretraining"}, "pretraining"),
        ({"family": "albert", "embedding_width": 0}, "cannot express"),
    ],
)
def test_what_the_format_cannot_express_is_not_exported(config, said, tmp_path):
    """The exported model would compute something else than the one that was trained."""
    model = make_encoder(
        EncoderConfig(num_heads=2, vocab_size=50, **{"num_layers": 2, "width": 16, "context": 20, **config})
    )
    with pytest.raises(ConfigError, match=said):
        export_encoder(model.config, model.state_dict(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tensors_of_another_model_are_not_exported(tmp_path):
    """A damaged folder would be written over hours, and refused by whoever opens it."""
    config = EncoderConfig(num_layers=1, width=16, num_heads=2, vocab_size=50, context=20)
    tensors = make_encoder(config).state_dict()
    tensors["extra"] = tensors.pop("pooler.bias")
    tensors["pooler.weight"] = torch.ones(3)
    with pytest.raises(DataError, match=r"missing: pooler\.bias; not of this model: extra; .*pooler\.weight"):
        export_encoder(config, tensors, tmp_path)
