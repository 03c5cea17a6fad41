"""`seedbed data preview` and `seedbed data judge` as a user types them."""

import json

from tests.chat_cases import turn


def conversations(count):
    for number in range(count):
        messages = [turn("user", f"Ask {number}?"), turn("assistant", f"Answer {number}.")]
        yield json.dumps({"messages": messages}) + "\n"


def test_examples_are_built_and_shown_with_what_is_trained(seedbed_cli, tmp_path):
    """Otherwise nobody would look at a mask before paying for a run."""
    (tmp_path / "chats.jsonl").write_text("".join(conversations(30)) + '{"messages": []}\n')
    sets = ["--set", "data.format=messages", "--set", "data.template=zephyr", "--set", "data.vocab_size=300"]
    built = seedbed_cli("data", "build", "chats.jsonl", "--out", "chats", *sets, "--json")
    assert built.code == 0, built.stderr
    assert json.loads(built.stdout)["drops"] == {"malformed": 1}
    shown = json.loads(
        seedbed_cli("data", "preview", "chats", "--count", "1", "--first", "0", "--json").stdout
    )
    (candidate,) = shown["examples"][0]["candidates"]
    assert candidate["spans"] == [
        [p["start"], p["start"] + p["tokens"]] for p in candidate["pieces"] if p["trained"]
    ]
    assert [p["text"] for p in candidate["pieces"] if p["trained"]] == ["Answer 0.<|endoftext|>"]
    plain = seedbed_cli("data", "preview", "chats", "--split", "holdout", env={"FORCE_COLOR": "1"})
    assert plain.code == 0, plain.stderr
    assert "not taken: 1 malformed" in plain.stdout
    assert "tokens trained" in plain.stdout
    wrong = seedbed_cli("data", "preview", "nowhere")
    assert (wrong.code, "is not a dataset" in wrong.stderr) == (3, True)


def test_an_unknown_template_is_named_before_anything_is_built(seedbed_cli, tmp_path):
    (tmp_path / "chats.jsonl").write_text("".join(conversations(3)))
    sets = ["--set", "data.format=messages", "--set", "data.template=lama3", "--set", "data.vocab_size=300"]
    outcome = seedbed_cli("data", "build", "chats.jsonl", "--out", "chats", *sets)
    assert outcome.code == 2
    assert "did you mean 'llama3'" in outcome.stderr
    assert not (tmp_path / "chats").exists()
