"""The generator: scheduling that changes no number, answers that a forward confirms, weights in place."""

import random

import pytest
import torch
from test_models import PARTS, tiny, tiny_of

from models import cache
from models.bert.config import EncoderConfig
from models.bert.encoder import Encoder
from models.generation import (
    BF16_TOLERANCE,
    Completion,
    Engine,
    Request,
    RolloutEngine,
    SamplingOptions,
    vote,
)
from models.scores import attend
from models.transformer import Transformer
from seedbed.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

GREEDY = SamplingOptions(temperature=0)
every_part = pytest.mark.parametrize("part", PARTS)


def mixed_requests(count: int) -> list[Request]:
    """Prompts, lengths and options of all kinds; some prompts come twice."""
    rng = random.Random(0)
    prompts = [[rng.randrange(101) for _ in range(rng.randrange(1, 20))] for _ in range(count - count // 8)]
    options = [
        GREEDY,
        SamplingOptions(temperature=0.7, top_k=5),
        SamplingOptions(top_p=0.9),
        SamplingOptions(min_p=0.05, repetition_penalty=1.3),
        SamplingOptions(frequency_penalty=0.5, presence_penalty=0.5, no_repeat_ngram=2),
    ]
    return [
        Request(rng.choice(prompts), rng.randrange(1, 8), options[number % 5], seed=number)
        for number in range(count)
    ]


@every_part
def test_a_text_has_the_same_bits_alone_and_in_any_company(part):
    """Rewards would depend on the batch size, and a resumed run would part from one that was not killed."""
    model, requests = tiny_of(part), mixed_requests(64)
    together = Engine(model, num_slots=64).complete(requests)
    assert together[::8] == [Engine(model).complete([request])[0] for request in requests[::8]]
    assert together == Engine(model, num_slots=64).complete(requests[::-1])[::-1]
    assert together == Engine(model, num_slots=5).complete(requests)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt2", {}),
        ("llama", {"num_kv_heads": 2}),
        ("mistral", {"window": 5, "num_kv_heads": 2}),
        ("gpt2", {"positions": "alibi"}),
    ],
)
def test_texts_of_one_length_attend_at_once_and_change_no_bit(monkeypatch, family, changes):
    """Answers to one prompt are of one length for long: of each its own call would take most of the time."""
    model, calls = tiny(family, width=64, num_heads=4, **changes), []
    monkeypatch.setattr(cache, "attend", lambda *given: calls.append(given[0].shape[0]) or attend(*given))
    rng = random.Random(1)
    prompts = [[rng.randrange(101) for _ in range(rng.choice((3, 9, 9)))] for _ in range(6)]
    requests = [Request(prompts[n // 5], 3 + n % 7, SamplingOptions(), seed=n) for n in range(30)]
    alone = [Engine(model).complete([request])[0] for request in requests]
    assert set(calls) == {1}
    calls.clear()
    assert Engine(model, num_slots=30).complete(requests) == alone
    assert max(calls) > 5
    # Slots that are given back and taken again no longer lie in order.
    assert Engine(model, num_slots=7).complete(requests) == alone
    # Of two threads, which one computes a row would decide how it is rounded.
    torch.set_num_threads(2)
    alone = [Engine(model).complete([request])[0] for request in requests]
    assert Engine(model, num_slots=30).complete(requests) == alone


@pytest.mark.parametrize("part", ["gpt2", "deepseek_v2"])
def test_threads_share_the_work_and_change_no_bit(part):
    torch.set_num_threads(2)
    model, requests = tiny_of(part), mixed_requests(16)
    two = Engine(model, num_slots=16).complete(requests)
    assert two == Engine(model, num_slots=3).complete(requests)


@every_part
@pytest.mark.parametrize(("packed", "padded"), [(True, False), (False, True)], ids=["cpu", "elsewhere"])
def test_what_is_generated_is_what_the_model_computes(part, packed, padded):
    """Log-probabilities of rollouts would not be those of the trainer's own forward."""
    model, engine = tiny_of(part), Engine(tiny_of(part), num_slots=3, packed=packed)
    engine.padded = padded
    requests = [
        Request(prompt, 9, SamplingOptions(temperature), seed=number)
        for number, (prompt, temperature) in enumerate(
            [([7], 0.0), ([1, 2, 3, 4, 5, 6, 7, 8], 1.0), ([9, 9], 0.5), ([5, 4, 3], 0.0), ([0] * 20, 1.0)]
        )
    ]
    for request, completion in zip(requests, engine.complete(requests), strict=True):
        assert len(completion.tokens) == 9
        expected = log_probs(model, request, completion.tokens)
        torch.testing.assert_close(torch.tensor(completion.log_probs), expected, atol=1e-5, rtol=0)


@every_part
def test_in_bfloat16_the_company_and_the_forward_change_rounding_alone(part):
    """The stated tolerance, `BF16_TOLERANCE`: a fault in a cache of two bytes would be larger."""
    model, requests = tiny_of(part).bfloat16(), mixed_requests(64)
    together = Engine(model, num_slots=64)
    assert not together.batch_invariant
    answers = together.complete(requests)
    for request, answer in list(zip(requests, answers, strict=True))[::8]:
        alone = Engine(model).complete([request])[0]
        for token, other, a, b in zip(
            answer.tokens, alone.tokens, answer.log_probs, alone.log_probs, strict=False
        ):
            if token != other:
                break
            assert a == pytest.approx(b, abs=BF16_TOLERANCE)
    request = Request([1, 2, 3, 4, 5, 6, 7, 8], 9, SamplingOptions(1.0), seed=3)
    answer = together.complete([request])[0]
    expected = log_probs(model, request, answer.tokens).float()
    torch.testing.assert_close(torch.tensor(answer.log_probs), expected, atol=BF16_TOLERANCE, rtol=0)


def log_probs(model: Transformer, request: Request, answer: list[int]) -> torch.Tensor:
    """By one forward over prompt and answer; a greedy answer must be the likeliest at every step."""
    logits = model(torch.tensor([[*request.prompt, *answer]]))[0, len(request.prompt) - 1 : -1]
    temperature = request.options.temperature
    if temperature == 0:
        assert logits.argmax(-1).tolist() == answer
    rows = (logits / (temperature or 1)).log_softmax(-1)
    return rows.gather(-1, torch.tensor(answer)[:, None])[:, 0]


@pytest.mark.parametrize("part", ["gpt2", "mistral", "alibi-window", "deepseek_v2"])
def test_a_prompt_read_in_parts_is_the_prompt_read_at_once(part, monkeypatch):
    """Long prompts would be misread where they were cut."""
    model, requests = tiny_of(part), [Request([*range(number, 25)], 6, GREEDY) for number in (0, 3, 20, 21)]
    whole = Engine(model).complete(requests)
    monkeypatch.setattr("models.generation.engine.PREFILL_TOKENS", 7)
    parts = Engine(model).complete(requests)
    assert [one.tokens for one in parts] == [one.tokens for one in whole]
    for one, other in zip(parts, whole, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_a_stream_tells_whose_token_it_is_and_why_a_text_ended():
    """A server could not send a token on before the whole batch is done."""
    engine = Engine(tiny("gpt2"), num_slots=2)
    free = engine.complete([Request([1, 2], 8, seed=3)])[0]
    stop = free.tokens[4]
    requests = [
        Request([1, 2], 8, seed=3),
        Request([1, 2], 8, seed=3, stop_ids=frozenset([stop])),
        Request([5] * 30, 8, seed=1),
    ]
    events = list(engine.stream(requests))
    completions = engine.complete(requests)
    for index, completion in enumerate(completions):
        own = [event for event in events if event.index == index]
        assert [event.token for event in own] == completion.tokens
        assert [event.finish for event in own] == [None] * (len(own) - 1) + [completion.finish]
    until = free.tokens.index(stop) + 1
    assert completions[1] == Completion(free.tokens[:until], free.log_probs[:until], "stop")
    assert [one.finish for one in completions] == ["length", "stop", "context"]
    assert len(completions[2].tokens) == 2


def test_stop_strings_are_found_across_tokens():
    """A model would run on past the end of its answer whenever a token straddled it."""
    decode = lambda tokens: "".join(f"<{token}>" for token in tokens)  # noqa: E731
    engine = Engine(tiny("gpt2"), decode=decode)
    free = engine.complete([Request([1], 12, seed=5)])[0]
    third, fourth = free.tokens[2:4]
    stopped = engine.complete([Request([1], 12, seed=5, stop_strings=("never", f"{third}><{fourth}"))])[0]
    assert (stopped.tokens, stopped.finish) == (free.tokens[:4], "stop")


def test_memory_grows_with_the_texts_and_not_with_the_context():
    """A model of a long context could not answer a short question on a small machine."""
    model = tiny("llama", context=100_000)
    cache = model.new_cache(4)
    model(torch.zeros(1, 12, dtype=torch.long), cache.extend([0, 2], [5, 7]))
    before = [b.clone() for b in cache.buffers_MGSK[0]]
    assert cache.capacity == 64
    cache.extend([2], [80])
    assert 87 <= cache.capacity <= 192
    for buffer, old in zip(cache.buffers_MGSK[0], before, strict=True):
        assert torch.equal(buffer[2, :, :7], old[2, :, :7])


def test_new_weights_are_taken_in_place_and_proved(tmp_path):
    """The policy would go on answering with the weights of an earlier step."""
    old, new = tiny("gpt2"), tiny("gpt2")
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.add_(0.01)
    engine: RolloutEngine = Engine(old)
    request, memory = Request([1, 2, 3], 5), [p.data_ptr() for p in old.parameters()]
    before = engine.complete([request]), engine.weights_hash()
    engine.load_weights(dict(new.named_parameters()))
    assert engine.complete([request]) == Engine(new).complete([request]) != before[0]
    assert engine.weights_hash() == Engine(new).weights_hash() != before[1]
    assert [p.data_ptr() for p in old.parameters()] == memory


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights.pop("norm.bias"), "missing: norm.bias"),
        (lambda weights: weights.update({"head.weight": torch.zeros(3)}), "unknown: head.weight"),
        (lambda weights: weights.update({"norm.bias": torch.zeros(3)}), r"norm.bias has shape \[3\]"),
    ],
)
def test_weights_of_another_model_are_refused_and_nothing_is_changed(change, said):
    engine = Engine(tiny("gpt2"))
    weights = {name: p + 1 for name, p in tiny("gpt2").named_parameters()}
    change(weights)
    before = engine.weights_hash()
    with pytest.raises(UsageError, match=said):
        engine.load_weights(weights)
    assert engine.weights_hash() == before


def test_the_hash_is_that_of_a_checkpoint():
    """A rollout's weights could not be compared with the step that they are said to be."""
    import hashlib

    from seedbed.files import canonical_json
    from training.checkpoint.tensors import DTYPES, raw_bytes

    model, digest = tiny("gpt2"), hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(canonical_json([f"model/{name}", DTYPES[tensor.dtype], list(tensor.shape)]))
        digest.update(raw_bytes(tensor))
    assert Engine(model).weights_hash() == digest.hexdigest()


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request([], 4), "empty"),
        (Request([1] * 32, 4), "context is 32"),
        (Request([5, 101], 4), "vocabulary of 101"),
        (Request([-1], 4), "token -1"),
        (Request([1], 0), "max_new_tokens = 0"),
        (Request([1], 4, stop_strings=("x",)), "no tokenizer"),
        (Request([1], 4, stop_strings=("",)), "empty"),
    ],
)
def test_requests_that_cannot_be_honoured_are_refused_before_anything_is_generated(request_, said):
    with pytest.raises(UsageError, match=said):
        Engine(tiny("gpt2")).stream([Request([1], 2), request_])


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"frequency_penalty": float("inf")},
        {"no_repeat_ngram": -2},
    ],
)
def test_options_that_mean_nothing_are_refused_by_name(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        SamplingOptions(**options)


def test_a_model_in_training_stays_so_and_generates_without_dropout():
    """A step of training after a rollout would be taken without dropout, or the rollout with it."""
    model = tiny("gpt2", dropout=0.5).train()
    for packed in (True, False):
        engine = Engine(model, packed=packed)
        assert engine.batch_invariant is packed
        first, second = engine.complete([Request([1, 2], 6)] * 2)
        assert first.log_probs == second.log_probs
        expected = log_probs(tiny("gpt2"), Request([1, 2], 6), first.tokens)
        torch.testing.assert_close(torch.tensor(first.log_probs), expected, atol=1e-5, rtol=0)
    assert model.training


def test_an_encoder_is_refused():
    config = EncoderConfig(num_layers=1, width=16, num_heads=2, vocab_size=50)
    with pytest.raises(UsageError, match="does not continue texts"):
        Engine(Encoder(config))  # type: ignore[arg-type]


def test_a_vote_is_for_the_most_frequent_answer_that_could_be_read():
    """Self-consistency: texts without an answer count against every answer, and ties go to the earliest."""
    assert vote(["4", None, "5", "5"]) == ("5", 0.5)
    assert vote(["b", "a", "a", "b"]) == ("b", 0.5)
    assert vote([None, None]) == (None, 0.0)
