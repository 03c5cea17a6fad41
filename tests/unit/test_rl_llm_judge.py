"""An LLM judge over a real local endpoint: both orders, a cache, retries, and failures that are no
verdicts."""

import pytest

from evals.judging import compared_by
from seedbed.errors import UsageError
from tests.llm_endpoint import endpoint_of, longer
from training.rl import llm_judge as judge_module
from training.rl.llm_judge import JudgeConfig, LlmJudge, Pair, calibrated, judge_config, preferences


@pytest.fixture
def endpoint():
    with endpoint_of(longer) as server:
        yield server


def judge(server, cache=None, **settings):
    return LlmJudge(JudgeConfig(server.url, "a-judge", pause_s=0.01, timeout_s=5.0, **settings), cache)


PAIRS = [Pair("Say it.", "short", "a long answer"), Pair("Say it.", "the longest of all", "brief")]


def test_each_pair_is_asked_in_both_orders(endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    one = judge(endpoint)
    assert [verdict.choice for verdict in one.verdicts(PAIRS)] == ["second", "first"]
    assert len(endpoint.seen) == 4
    path, key, body = endpoint.seen[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    assert (body["model"], body["temperature"]) == ("a-judge", 0)
    assert (one.usage.asked, one.usage.prompt_tokens, one.usage.completion_tokens) == (4, 40, 12)


def test_a_verdict_that_turns_with_the_order_is_none(endpoint):
    """Judges prefer what they read first."""
    endpoint.decide = lambda first, second: "A"
    (verdict,) = judge(endpoint).verdicts(PAIRS[:1])
    assert (verdict.choice, verdict.is_consistent, verdict.failure) == ("tie", False, None)


def test_what_was_asked_is_not_asked_again(endpoint, tmp_path):
    judge(endpoint, tmp_path / "cache.jsonl").verdicts(PAIRS)
    again = judge(endpoint, tmp_path / "cache.jsonl")
    assert [verdict.choice for verdict in again.verdicts(PAIRS)] == ["second", "first"]
    assert (len(endpoint.seen), again.usage.cached, again.usage.asked) == (4, 4, 0)
    other = judge(endpoint, tmp_path / "cache.jsonl", criterion="Which is kinder?")
    other.verdicts(PAIRS[:1])
    assert len(endpoint.seen) == 6


def test_a_busy_judge_is_asked_again_and_a_refusal_is_not(endpoint):
    endpoint.faults = [503, 429, "I cannot say."]
    one = judge(endpoint, at_once=1)
    assert [verdict.choice for verdict in one.verdicts(PAIRS[:1])] == ["second"]
    assert one.usage.tries == 5
    endpoint.faults = [401]
    refused = judge(endpoint, at_once=1)
    (verdict,) = refused.verdicts(PAIRS[1:])
    assert (verdict.choice, verdict.failure, "401" in verdict.detail) == (None, "raised", True)
    assert refused.usage.failures == {"raised": 1}


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("Verdict: **A**", "first"),
        ("**Verdict:** B", "second"),
        ("I think so.\nVerdict: (tie)\n", "tie"),
        ("Verdict: Answer A", "first"),
        ("Verdict: A tie", None),
        ("Verdict: A, since B is worse", None),
    ],
)
def test_a_verdict_is_a_line_of_its_own(reply, choice):
    if choice is None:
        with pytest.raises(judge_module._Failed):
            judge_module._choice_in(reply)
    else:
        assert judge_module._choice_in(reply) == choice


def test_a_reply_that_breaks_off_costs_its_own_pair_alone(endpoint):
    endpoint.faults = ["broken"] * 8
    verdicts = judge(endpoint, at_once=1).verdicts(PAIRS)
    assert [verdict.failure for verdict in verdicts] == ["unreachable", None]


def test_a_judge_that_says_nothing_is_given_up(endpoint):
    endpoint.faults = ["silent"] * 2
    one = LlmJudge(
        JudgeConfig(f"http://127.0.0.1:{endpoint.server_address[1]}", "m", timeout_s=0.3, num_tries=1)
    )
    assert one.verdicts(PAIRS[:1])[0].failure == "timeout"


def test_a_key_is_not_sent_for_all_to_read():
    assert JudgeConfig("https://api.example.com/v1", "m").is_private
    assert JudgeConfig("http://localhost:8000/v1", "m").is_private
    assert not JudgeConfig("http://10.0.0.1:8000/v1", "m").is_private


def test_nonsense_and_silence_are_failures_and_never_verdicts(endpoint):
    endpoint.faults = ["Verdict: A or maybe Verdict: B"] * 8
    (verdict,) = judge(endpoint, at_once=1).verdicts(PAIRS[:1])
    assert (verdict.choice, verdict.failure) == (None, "malformed")
    nobody = LlmJudge(JudgeConfig("http://127.0.0.1:9/v1", "m", num_tries=2, pause_s=0.01))
    (verdict,) = nobody.verdicts(PAIRS[:1])
    assert (verdict.choice, verdict.failure) == (None, "unreachable")
    with pytest.raises(UsageError, match="no address of a judge"):
        JudgeConfig("localhost:8000", "m")


def test_a_judge_is_measured_on_what_is_known(endpoint):
    found = calibrated(judge(endpoint), PAIRS * 5, ["second", "first"] * 4 + ["first", "first"])
    assert found["agreement"] == 0.9
    assert found["interval"][0] < 0.9 < found["interval"][1]
    assert (found["decided"], found["consistent"], found["failed"]) == (1.0, 1.0, 0)


def test_labels_of_a_judge_are_comparisons(endpoint):
    endpoint.decide = lambda first, second: "tie" if len(first) == len(second) else longer(first, second)
    rows, left_out = preferences(judge(endpoint), [*PAIRS, Pair("p", "same", "size")])
    assert rows[0] == {"prompt": "Say it.", "chosen": "a long answer", "rejected": "short"}
    assert (len(rows), left_out) == (2, {"tie": 1, "inconsistent": 0})


def test_settings_of_a_judge_are_read_or_refused(tmp_path):
    path = tmp_path / "judge.toml"
    path.write_text('url = "http://127.0.0.1:1/v1"\nmodel = "m"\nnum_tries = 2\ntimeout_s = 3')
    assert judge_config(path) == JudgeConfig("http://127.0.0.1:1/v1", "m", num_tries=2, timeout_s=3)
    for text, words in (
        ('url = "http://x"\nmodle = "m"', "did you mean 'model'"),
        ('url = "http://x"\nmodel = 1', "model = 1 is of another type"),
        ('url = "http://x"', "needs model"),
        ("url = ", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=words):
            judge_config(path)
    with pytest.raises(UsageError, match="cannot be read"):
        judge_config(tmp_path / "none.toml")


def test_a_judge_that_takes_what_it_reads_first_gives_nobody_a_win(endpoint):
    """The model whose answers happen to be shown first would win the evaluation."""
    endpoint.decide = lambda first, second: "A"
    prompts, first, second = ["p", "q", "r"], ["one", "two", "three"], ["four", "five", "six"]
    found, each = compared_by(judge(endpoint), prompts, first, second)
    assert (found.rate.value, found.wins, found.ties, found.inconsistent) == (0.5, 0, 3, 3)
    assert [one.is_consistent for one in each] == [False] * 3
    endpoint.decide = longer
    found, _ = compared_by(judge(endpoint), prompts, second, first)
    assert (found.wins, found.ties, found.losses, found.failed) == (2, 0, 1, 0)
