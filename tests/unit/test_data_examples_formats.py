"""Rows of every format become examples, and what is none is refused by name: from rows to a verified
dataset."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chat_cases import turn

from data.build import build_dataset
from data.config import DataConfig
from data.examples.messages import Rejected, candidates_of
from data.examples.preview import preview
from data.examples.python_functions import rows_of
from data.examples.table import ExampleTable
from data.shards import Dataset
from seedbed.errors import ConfigError, DataError, UsageError

ASKED, ANSWERED = turn("user", "Why?"), turn("assistant", "So.")


def texts(candidates):
    return [[(m["role"], m["content"]) for m in one.messages] for one in candidates.conversations]


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("messages", {"messages": [ASKED, ANSWERED]}),
        (
            "messages",
            {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
        ),
        ("messages", {"messages": [turn("user", [{"type": "text", "text": "Why?"}]), ANSWERED]}),
        ("prompt-response", {"prompt": "Why?", "response": "So."}),
        ("prompt-response", {"prompt": [ASKED], "completion": "So."}),
        ("instruction", {"instruction": "Why?", "input": "", "output": "So."}),
        ("feedback", {"prompt": "Why?", "response": "So.", "label": True}),
    ],
)
def test_formats_of_one_answer(format, row):
    """The same exchange is the same example, however it is written down."""
    found = candidates_of(row, format)
    assert texts(found) == [[("user", "Why?"), ("assistant", "So.")]]
    assert found.ranks == (0,)


def test_an_instruction_has_its_input_and_a_system_text():
    row = {"system": "Be kind.", "instruction": "Translate.", "input": "oui", "output": "yes"}
    assert texts(candidates_of(row, "instruction")) == [
        [("system", "Be kind."), ("user", "Translate.\n\noui"), ("assistant", "yes")]
    ]


def test_preferences_and_rankings_keep_the_raters_order():
    pair = candidates_of({"prompt": "Why?", "chosen": "So.", "rejected": "No.", "margin": 2}, "preference")
    assert [one[-1][1] for one in texts(pair)] == ["So.", "No."]
    assert (pair.ranks, pair.margin) == ((0, 1), 2.0)
    whole = candidates_of(
        {"chosen": [ASKED, ANSWERED], "rejected": [ASKED, turn("assistant", "No.")]}, "preference"
    )
    assert texts(whole) == texts(pair)
    ranked = {"prompt": "Why?", "responses": ["a", "b", "c"]}
    assert candidates_of(ranked, "ranking").ranks == (0, 1, 2)
    assert candidates_of({**ranked, "scores": [1, 3, 1]}, "ranking").ranks == (1, 0, 1)
    assert candidates_of({**ranked, "ranks": [2, 1, 2]}, "ranking").ranks == (1, 0, 1)
    assert candidates_of({"prompt": "a", "response": "b", "label": False}, "feedback").ranks == (1,)


PAIR = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
BAD = [
    ("messages", {"messages": [ANSWERED, ASKED]}, "roles", "message 0 is of 'assistant' first"),
    ("messages", {"messages": [ASKED, ASKED, ANSWERED]}, "roles", "message 1 is of 'user' after 'user'"),
    ("messages", {"messages": [ASKED, turn("tool", "x"), ANSWERED]}, "roles", "of 'tool' after 'user'"),
    ("messages", {"messages": [ASKED, turn("system", "x"), ANSWERED]}, "roles", "'system' after 'user'"),
    ("messages", {"messages": [turn("narrator", "x"), ANSWERED]}, "roles", "'narrator'; roles are"),
    ("messages", {"messages": [ASKED]}, "unanswered", "last message is of 'user'"),
    ("messages", {"messages": [ASKED, turn("assistant", " \n")]}, "empty_response", "has no text"),
    ("messages", {"messages": [turn("user", ""), ANSWERED]}, "empty_message", "of 'user', has no text"),
    ("messages", {"messages": [ASKED, turn("assistant", 7)]}, "malformed", "message 1 has no text"),
    ("messages", {"messages": []}, "malformed", "not a list with anything"),
    ("messages", {"messages": "hi"}, "malformed", "not a list"),
    ("messages", {"text": "hi"}, "missing_field", '"messages" is missing; the row has text'),
    ("messages", {"messages": None}, "missing_field", '"messages" is null'),
    ("messages", {"messages": [ASKED, turn("assistant", "\ufdd0")]}, "noncharacter", "U+FDD0"),
    ("messages", {"messages": [ASKED, ANSWERED], "weight": -1}, "malformed", '"weight" is -1'),
    ("prompt-response", {"prompt": "a", "response": ""}, "empty_response", "no text"),
    ("prompt-response", {"response": "a"}, "missing_field", '"prompt"'),
    ("preference", {**PAIR, "rejected": "So. "}, "identical_sides", "nothing is preferred"),
    ("preference", {**PAIR, "rejected": ""}, "empty_response", "no text"),
    ("preference", {"chosen": "a", "rejected": "b"}, "missing_field", '"prompt"'),
    ("preference", {**PAIR, "margin": "big"}, "malformed", "'big', not a number"),
    ("preference", {**PAIR, "margin": float("inf")}, "malformed", "inf, not a number from 0 on"),
    ("preference", {**PAIR, "margin": -1}, "malformed", "-1, not a number from 0 on"),
    ("preference", {"chosen": [ASKED, ANSWERED], "rejected": [ASKED, ANSWERED]}, "identical_sides", "same"),
    ("ranking", {"prompt": "a", "responses": ["b"]}, "malformed", "2 to 64"),
    ("ranking", {"prompt": "a", "responses": ["b", "c"], "scores": [1, 1]}, "identical_sides", "same rank"),
    ("ranking", {"prompt": "a", "responses": ["b", "c", "b"]}, "repeated_answer", "preferred to itself"),
    ("ranking", {"prompt": "a", "responses": ["b", "c"], "scores": [1]}, "malformed", "list of 2 numbers"),
    ("feedback", {"prompt": "a", "response": "b", "label": 1}, "malformed", "not true or false"),
]


def test_what_is_null_is_not_there():
    """Tables have all columns in all rows."""
    row = {"messages": [ASKED, ANSWERED], "conversations": None}
    assert len(candidates_of(row, "messages").conversations[0].messages) == 2
    assert candidates_of({**PAIR, "margin": None}, "preference").margin == 0


@pytest.mark.parametrize(("format", "row", "reason", "detail"), BAD)
def test_a_row_that_is_no_example_says_what_is_wrong(format, row, reason, detail):
    """Otherwise it would be learned as something else, or vanish without a trace."""
    with pytest.raises(Rejected, match=reason) as caught:
        candidates_of(row, format)
    assert caught.value.reason == reason
    assert detail in caught.value.detail


def build(folder, lines, name="rows", **settings):
    (folder / f"{name}.jsonl").write_bytes(b"".join(lines))
    options = {"template": "zephyr", "vocab_size": 300, "holdout_fraction": 0.25, **settings}
    return Dataset.open(
        build_dataset(DataConfig(source=str(folder / f"{name}.jsonl"), **options), folder / name), verify=True
    )


def line(row):
    return json.dumps(row).encode() + b"\n"


def conversations(count, size=1):
    for number in range(count):
        answer = f"Answer {number}. " * size * (1 + number % 3)
        yield line(
            {"id": f"c{number}", "messages": [turn("user", f"Ask {number}?"), turn("assistant", answer)]}
        )


def test_a_dataset_of_examples_is_built_verified_and_counts_what_it_refused(tmp_path):
    """A fifth of a dataset could be missing, or a byte of it flipped, and nobody would know."""
    huge = {"messages": [turn("user", "x" * 5000), ANSWERED]}
    bad = [
        b"\xff\xfe not UTF-8\n",
        b"{not json\n",
        line({"messages": [ANSWERED]}),
        line({"messages": [ASKED, turn("assistant", "")]}),
        line({"messages": [ASKED, turn("assistant", "a\0b")]}),
        b'{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "x"}]}\n',
        line(huge),
        line({"id": "again", "messages": [ASKED, ANSWERED]}),
        line({"id": "again", "messages": [ASKED, ANSWERED]}),
    ]
    dataset = build(
        tmp_path,
        [*conversations(60), *bad],
        format="messages",
        max_document_bytes=4000,
        max_malformed_share=0.2,
    )
    assert dataset.manifest["drops"] == {
        "empty_response": 1,
        "exact_duplicate": 1,
        "malformed": 1,
        "roles": 1,
        "too_long": 1,
        "undecodable": 3,
    }
    assert sum(1 for _ in dataset.drops()) == 8
    counts = dataset.manifest["examples"]["splits"]
    assert counts["train"]["examples"] + counts["holdout"]["examples"] == 61
    assert counts["holdout"]["examples"] > 5
    table = ExampleTable.of(dataset, "train")
    assert table.num_examples == table.num_sequences == counts["train"]["examples"]
    assert (
        int(sum(table.trained(s, int(table.lengths[s])).sum() for s in range(table.num_sequences)))
        == (counts["train"]["trained_tokens"])
    )
    tokens = next((tmp_path / "rows").rglob("train-*.tokens"))
    content = bytearray(tokens.read_bytes())
    content[100] ^= 1
    tokens.write_bytes(content)
    damaged = ExampleTable(Dataset.open(tmp_path / "rows").split("train"))
    with pytest.raises(DataError, match="damaged"):
        damaged.tokens(0, 100)


def test_tables_hold_examples_as_files_of_json_do(tmp_path):
    """Most published sets of conversations are Parquet."""
    rows = [json.loads(row) for row in conversations(20)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    config = DataConfig(
        source=str(tmp_path / "rows.parquet"), format="messages", template="zephyr", vocab_size=300
    )
    of_table = Dataset.open(build_dataset(config, tmp_path / "table"))
    of_lines = build(tmp_path, list(conversations(20)), format="messages", holdout_fraction=0.05)
    tokens = [
        [table.tokens(s).tolist() for s in range(table.num_sequences)]
        for table in (ExampleTable.of(one, "train") for one in (of_table, of_lines))
    ]
    assert tokens[0] == tokens[1]


def test_a_prompt_is_on_one_side_of_the_split(tmp_path):
    """A held-out answer to a trained prompt would measure memory."""
    rows = [
        line({"prompt": f"Q{number % 20}", "chosen": f"good {number}", "rejected": f"bad {number}"})
        for number in range(100)
    ]
    dataset = build(tmp_path, rows, format="preference")
    prompts = {}
    for split in ("train", "holdout"):
        table = ExampleTable.of(dataset, split)
        tokenizer = dataset.tokenizer()
        prompts[split] = {
            tokenizer.decode(table.tokens(s)[: int(table.spans_of(s)[0, 0])])
            for s in range(table.num_sequences)
        }
        assert table.ranks.tolist() == [0, 1] * table.num_examples
    assert prompts["train"]
    assert prompts["holdout"]
    assert not prompts["train"] & prompts["holdout"]


def test_the_same_rows_give_the_same_dataset(tmp_path):
    first = build(tmp_path, list(conversations(20)), "a", format="messages")
    again = build(tmp_path, list(conversations(20)), "b", format="messages")
    assert (tmp_path / "a/part-00000/train-000.tokens").read_bytes() == (
        tmp_path / "b/part-00000/train-000.tokens"
    ).read_bytes()
    assert first.manifest["splits"] == again.manifest["splits"]
    other = build(tmp_path, list(conversations(20)), "c", format="messages", template="chatml")
    assert other.manifest["splits"] != first.manifest["splits"]


def test_nothing_to_learn_from_names_the_first_reason(tmp_path):
    with pytest.raises(DataError, match=r"dropped: 3 missing_field; the first: .*\"response\""):
        build(
            tmp_path,
            [line({"text": str(n)}) for n in range(3)],
            format="prompt-response",
            tokenizer=given(tmp_path),
        )
    with pytest.raises(ConfigError, match="no shipped template"):
        build(tmp_path, list(conversations(3)), "other", format="messages", template="lama3")


def given(folder):
    """The path of a tokenizer."""
    from chat_cases import tokenizer

    (folder / "tokenizer.json").write_bytes(tokenizer().to_bytes())
    return str(folder / "tokenizer.json")


def test_a_preview_shows_what_is_trained(tmp_path):
    """Nobody could see a wrong mask before the run is paid for."""
    build(tmp_path, list(conversations(9)), format="messages")
    shown = preview(str(tmp_path / "rows"), count=2, first=0)
    (candidate,) = shown["examples"][0]["candidates"]
    trained = [piece["text"] for piece in candidate["pieces"] if piece["trained"]]
    assert trained[0].startswith("Answer")
    assert trained[0].endswith("<|endoftext|>")
    assert sum(piece["tokens"] for piece in candidate["pieces"]) == candidate["tokens"]
    start, stop = candidate["spans"][0]
    assert candidate["pieces"][1]["start"] == start
    assert candidate["pieces"][1]["tokens"] == stop - start
    plain = tmp_path / "plain.txt"
    plain.write_text("\n\n".join(f"Text number {n}." * 20 for n in range(30)))
    build_dataset(DataConfig(source=str(plain), vocab_size=300), tmp_path / "text")
    with pytest.raises(UsageError, match="all of it is trained"):
        preview(str(tmp_path / "text"))


PYTHON = '''
import os

class Thing:
    @property
    def name(self):
        """Its name,

        in full."""
        return self._name

def bare(x):
    return x

def empty():
    """Nothing follows."""

async def later(x, y=1):
    """Add."""
    # carefully
    return x + y

def one_line(): "Doc."; return 1
'''


def test_functions_of_python_become_prompts_and_bodies():
    rows = list(rows_of(PYTHON))
    assert [row["name"] for row in rows] == ["Thing.name", "later"]
    assert rows[0]["prompt"] == 'def name(self):\n    """Its name,\n\n    in full."""\n'
    assert rows[0]["response"] == "    return self._name\n"
    assert rows[1]["prompt"] == 'async def later(x, y=1):\n    """Add."""\n'
    assert rows[1]["response"] == "    # carefully\n    return x + y\n"
    for row in rows:
        compile(row["prompt"] + row["response"], "row", "exec")
    with pytest.raises(Rejected, match="not Python"):
        list(rows_of("def f(:\n"))


def test_python_files_are_split_by_module(tmp_path):
    """A held-out function of a trained module would be half known."""
    for number in range(30):
        functions = [
            f'def f{n}(x):\n    """Function {n} of {number}."""\n    return x + {n}\n' for n in range(4)
        ]
        (tmp_path / f"m{number}.py").write_text("\n\n".join(functions))
    (tmp_path / "broken.py").write_text("def f(:\n")
    config = DataConfig(
        source=str(tmp_path),
        format="python-functions",
        template="plain",
        vocab_size=300,
        holdout_fraction=0.3,
    )
    dataset = Dataset.open(build_dataset(config, tmp_path.parent / "functions"))
    modules = {
        split: {row["id"].partition(":")[0] for row in dataset.split(split).provenances()}
        for split in ("train", "holdout")
    }
    assert len(modules["train"]) + len(modules["holdout"]) == 30
    assert len(modules["holdout"]) > 3
    assert dataset.manifest["drops"]["malformed"] == 1
