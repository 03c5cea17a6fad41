"""A checkpoint under lm-evaluation-harness: its numbers are those of our own scorer.

The agreement with that harness's own model is printed by benchmarks/evals.py.
"""

import pytest
import torch
from test_evals_scoring import Letters
from test_models import tiny_of

from evals.lm_eval_model import _generation, harness_model_class
from evals.requests import LogLikelihood, Rolling
from evals.scoring import CachedBackend, Scorer


def test_settings_of_a_request_are_taken_over():
    """A greedy task would be sampled, or an answer cut at another string."""
    found = _generation(
        "a", "text", {"until": "\n", "max_gen_toks": 500, "do_sample": False, "temperature": 0.0}, 31
    )
    assert (found.until, found.max_new_tokens, found.options.temperature) == (("\n",), 31, 0)
    sampled = _generation("a", "text", {"until": ["a", "b"], "do_sample": True, "temperature": 0.7}, 999)
    assert (sampled.until, sampled.max_new_tokens, sampled.options.temperature) == (("a", "b"), 256, 0.7)
    assert _generation("a", "text", {}, 999).options.temperature == 0


def test_under_the_harness_numbers_are_our_own():
    """The same checkpoint would have two scores."""
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance

    torch.set_num_threads(1)
    model = tiny_of("gpt2")
    scorer = Scorer(CachedBackend(model, decode=Letters().decode), Letters())
    harness = harness_model_class()(scorer=scorer)
    pairs = [("abc ", "def"), ("abc ", "xy"), ("", "the"), ("q" * 50, "r")]
    asked = [Instance("loglikelihood", {}, pair, n, ("t", n, 1)) for n, pair in enumerate(pairs)]
    own = scorer.log_likelihoods([LogLikelihood("", *pair) for pair in pairs])
    assert harness.loglikelihood(asked) == [(one.log_likelihood, one.is_greedy) for one in own]
    texts = ["abc" * 30, "x"]
    asked = [Instance("loglikelihood_rolling", {}, (text,), n, ("t", n, 1)) for n, text in enumerate(texts)]
    rolled = scorer.rolling([Rolling("", text) for text in texts], stride=32)
    assert harness.loglikelihood_rolling(asked) == [one.log_likelihood for one in rolled]
    asked = [Instance("generate_until", {}, ("abc", {"until": [], "max_gen_toks": 5}), 0, ("t", 0, 1))]
    assert len(harness.generate_until(asked)[0]) <= 10
