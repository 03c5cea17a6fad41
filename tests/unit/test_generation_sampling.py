"""Sampling, repetition controls and beams against `transformers`, whose models are random and local."""

import pytest
import torch
from test_models import tiny, tiny_of

from models.generation import Engine, Request, SamplingOptions, beam_search
from models.generation.penalties import penalised
from models.generation.sampler import choose, sample
from models.hf import export_model

V = 40


def distribution(logits_V: torch.Tensor, options: SamplingOptions) -> torch.Tensor:
    """[V]: how often each token is sampled, over evenly spaced uniforms."""
    uniforms = [(number + 0.5) / 5000 for number in range(5000)]
    tokens = sample(logits_V.expand(len(uniforms), -1), options, uniforms)
    return torch.bincount(tokens, minlength=len(logits_V)) / len(uniforms)


@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(),
        SamplingOptions(temperature=0.5),
        SamplingOptions(temperature=2.0, top_k=7),
        SamplingOptions(top_p=0.6),
        SamplingOptions(min_p=0.2),
        SamplingOptions(temperature=1.5, top_k=12, top_p=0.8),
        SamplingOptions(top_p=0.9, min_p=0.1),
    ],
)
def test_tokens_come_from_the_distribution_that_the_options_describe(options, monkeypatch):
    """Papers' settings would not mean here what they mean elsewhere."""
    from transformers.generation import logits_process as theirs

    logits = 2 * torch.randn(V, generator=torch.Generator().manual_seed(1))
    expected = theirs.TemperatureLogitsWarper(options.temperature)(None, logits[None])
    for asked, warp in (
        (options.top_k, theirs.TopKLogitsWarper),
        (options.top_p, theirs.TopPLogitsWarper),
        (options.min_p, theirs.MinPLogitsWarper),
    ):
        if asked not in (0, 1):
            expected = warp(asked)(None, expected)
    torch.testing.assert_close(distribution(logits, options), expected.softmax(-1)[0], atol=4e-4, rtol=0)
    # The same when the likeliest candidates are not enough, and a row is sorted whole.
    monkeypatch.setattr("models.generation.sampler.NUM_CANDIDATES", 3)
    torch.testing.assert_close(distribution(logits, options), expected.softmax(-1)[0], atol=4e-4, rtol=0)


def test_a_uniform_at_either_end_picks_a_token_that_can_be():
    """Once in many million draws, a token of probability zero would be said."""
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf])
    for options in (SamplingOptions(), SamplingOptions(top_k=2), SamplingOptions(top_p=0.999)):
        assert {choose(logits, options, 0.0), choose(logits, options, 1 - 2**-53)} == {1, 3}


def test_repetition_controls_are_the_published_ones():
    from transformers.generation import logits_process as theirs

    prompt, made = [3, 1, 4, 1, 5], [9, 2, 6, 1, 4]
    said, logits = torch.tensor([[*prompt, *made]]), torch.randn(V)
    ours = penalised(logits, prompt, made, SamplingOptions(repetition_penalty=1.7))
    assert torch.equal(ours, theirs.RepetitionPenaltyLogitsProcessor(1.7)(said, logits[None].clone())[0])
    for size in (1, 2, 3):
        ours = penalised(logits, prompt, made, SamplingOptions(no_repeat_ngram=size))
        assert torch.equal(ours, theirs.NoRepeatNGramLogitsProcessor(size)(said, logits[None].clone())[0])
    options = SamplingOptions(frequency_penalty=0.5, presence_penalty=2.0)
    lowered = logits - penalised(logits, [7, 7], [8, 8, 8, 9], options)
    assert {token: round(by, 4) for token, by in enumerate(lowered.tolist()) if by} == {8: 3.5, 9: 2.5}


def test_a_ban_that_would_leave_nothing_is_lifted():
    """Otherwise one text would stop all that grow beside it."""
    logits = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(penalised(logits, [0, 1], [2], SamplingOptions(no_repeat_ngram=1)), logits)


def test_repetition_controls_reach_the_text():
    model = tiny("gpt2")
    plain, controlled = (
        Engine(model).complete([Request([1], 30, options)])[0].tokens
        for options in (SamplingOptions(temperature=0), SamplingOptions(temperature=0, no_repeat_ngram=1))
    )
    assert len(set(plain)) < 30 == len(set(controlled))


@pytest.fixture(scope="module", params=["gpt2", "llama-gqa", "mistral", "mixtral", "qwen3", "deepseek_v2"])
def both(request, tmp_path_factory):
    """One of our models, and theirs with the same weights."""
    from transformers import AutoModelForCausalLM

    model, folder = tiny_of(request.param), tmp_path_factory.mktemp("hf") / "model"
    export_model(model.config, dict(model.named_parameters()), folder)
    return model, AutoModelForCausalLM.from_pretrained(folder).eval()


def test_greedy_answers_are_those_of_transformers(both):
    """Answers to a ragged batch, theirs padded on the left and ours not at all."""
    model, theirs = both
    prompts = [[1, 2, 3], [7], [9, 8, 7, 6, 5, 4, 3, 2]]
    tokens = torch.tensor([[0] * (8 - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (8 - len(p)) + [1] * len(p) for p in prompts])
    expected = theirs.generate(
        tokens, attention_mask=mask, max_new_tokens=15, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    ours = Engine(model).complete([Request(p, 15, SamplingOptions(temperature=0)) for p in prompts])
    assert [one.tokens for one in ours] == expected[:, 8:].tolist()


@pytest.mark.parametrize(("num_beams", "length_penalty"), [(1, 1.0), (3, 1.0), (4, 0.0), (4, 2.0)])
def test_beams_are_those_of_transformers(both, num_beams, length_penalty):
    """A search that loses good beams, or weighs lengths in another way, would look like a worse model."""
    model, theirs = both
    prompt, stop = [3, 1, 4], int(theirs(torch.tensor([[3, 1, 4]])).logits[0, -1].topk(3).indices[2])
    found = theirs.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, 3, dtype=torch.long), max_new_tokens=8,
        num_beams=num_beams, length_penalty=length_penalty, num_return_sequences=num_beams, do_sample=False,
        eos_token_id=stop, pad_token_id=0, early_stopping="never",
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    ours = beam_search(
        Engine(model), prompt, num_beams=num_beams, max_new_tokens=8, length_penalty=length_penalty,
        stop_ids=frozenset([stop]),
    )  # fmt: skip
    expected = [trimmed(row, stop) for row in found.sequences[:, 3:].tolist()]
    assert [beam.tokens for beam in ours] == expected
    if num_beams > 1:
        assert [beam.score for beam in ours] == pytest.approx(found.sequences_scores.tolist(), abs=1e-4)


def trimmed(tokens: list[int], stop: int) -> list[int]:
    return tokens[: tokens.index(stop) + 1] if stop in tokens else tokens
