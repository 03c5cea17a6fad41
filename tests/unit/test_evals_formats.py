"""Files in the formats of published benchmarks, small ones of our own."""

import json
from pathlib import Path

import pytest

from evals.tasks.definition import parse_task
from evals.tasks.formats import FORMATS, read_file
from evals.tasks.prompts import context_of
from evals.tasks.running import run
from seedbed.errors import ConfigError, DataError, Unreadable

SQUAD = {
    "data": [
        {
            "title": "Tea",
            "paragraphs": [
                {
                    "context": "Tea is hot.",
                    "qas": [
                        {
                            "id": "t1",
                            "question": "What is tea?",
                            "answers": [{"text": "hot"}, {"text": "hot"}],
                        },
                        {"id": "t2", "question": "Who?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ]
}
STEREOSET = {
    "data": {
        "intrasentence": [
            {
                "id": "s1",
                "target": "cook",
                "bias_type": "profession",
                "context": "The cook is BLANK.",
                "sentences": [
                    {"sentence": "The cook is a lamp.", "gold_label": "unrelated"},
                    {"sentence": "The cook is loud.", "gold_label": "stereotype"},
                    {"sentence": "The cook is calm.", "gold_label": "anti-stereotype"},
                ],
            }
        ]
    }
}
CODE = {
    "task_id": "T/0",
    "prompt": "def f(x):\n",
    "entry_point": "f",
    "canonical_solution": "    return x\n",
    "test": "def check(g):\n    assert g(2) == 2\n",
}

# format -> (file, subset, content, what the first item is: fields, choices, answer, references)
CASES = {
    "jsonl": (
        "a.jsonl",
        "",
        [{"q": "2+2", "choices": ["3", "4"], "answer": 1}],
        ({"q": "2+2"}, ("3", "4"), 1, ()),
    ),
    "mmlu": (
        "a.csv",
        "",
        '"Is it, or not?",a,b,c,d,C\n',
        ({"question": "Is it, or not?"}, tuple("abcd"), 2, ()),
    ),
    "mmlu-rows": (
        "a.jsonl",
        "",
        [{"question": "?", "choices": ["a", "b"], "answer": 1}],
        ({"question": "?"}, ("a", "b"), 1, ()),
    ),
    "arc": (
        "a.jsonl",
        "",
        [
            {
                "id": "M",
                "question": {
                    "stem": "Why?",
                    "choices": [{"text": "so", "label": "1"}, {"text": "no", "label": "2"}],
                },
                "answerKey": "2",
            }
        ],
        ({"question": "Why?"}, ("so", "no"), 1, ()),
    ),
    "arc-columns": (
        "a.json",
        "",
        [{"question": "Why?", "choices": {"text": ["so", "no"], "label": ["A", "B"]}, "answerKey": "A"}],
        ({"question": "Why?"}, ("so", "no"), 0, ()),
    ),
    "hellaswag": (
        "a.jsonl",
        "",
        [
            {
                "ind": 7,
                "activity_label": "Tea",
                "ctx": "One [title] Boil  it.",
                "endings": ["Drink. [step]", "Run."],
                "label": "0",
            }
        ],
        ({"context": "Tea: One. Boil it."}, ("Drink. ", "Run."), 0, ()),
    ),
    "gsm8k": (
        "a.jsonl",
        "",
        [{"question": "How many?", "answer": "2*600=<<2*600=1200>>1200\n#### 1,200"}],
        ({"question": "How many?", "reasoning": "2*600=1200"}, (), None, ("1200",)),
    ),
    "humaneval": ("a.jsonl", "", [CODE], ({"prompt": "def f(x):\n"}, (), None, ("    return x\n",))),
    "squad": (
        "a.json",
        "",
        SQUAD,
        ({"context": "Tea is hot.", "question": "What is tea?"}, (), None, ("hot",)),
    ),
    "glue": (
        "a.tsv",
        "qnli",
        'index\tquestion\tsentence\tlabel\n0\tWho "x?\tIt.\tnot_entailment\n',
        ({"question": 'Who "x?', "sentence": "It."}, ("yes", "no"), 1, ()),
    ),
    "glue-numbers": (
        "a.tsv",
        "mrpc",
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t4\t5\tA b.\tB a.\n",
        ({"sentence1": "A b.", "sentence2": "B a."}, ("no", "yes"), 1, ()),
    ),
    "wmt": (
        "a.jsonl",
        "de-en",
        [{"translation": {"de": "Tee", "en": "tea"}}],
        ({"source": "Tee", "source_language": "de", "target_language": "en"}, (), None, ("tea",)),
    ),
    "wmt-columns": (
        "a.tsv",
        "de-en",
        "Tee\ttea\n",
        ({"source": "Tee", "source_language": "de", "target_language": "en"}, (), None, ("tea",)),
    ),
    "stereoset": (
        "a.json",
        "",
        STEREOSET,
        ({"context": ""}, ("The cook is loud.", "The cook is calm.", "The cook is a lamp."), None, ()),
    ),
    "toxigen": (
        "a.jsonl",
        "",
        [{"generation": "hi", "prompt_label": 0, "group": "g"}],
        ({"text": "hi"}, ("no", "yes"), 0, ()),
    ),
}


def written(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    if isinstance(content, str):
        path.write_text(content)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("case", CASES)
def test_a_published_format_is_read(case, tmp_path):
    """A benchmark that is at hand would have to be rewritten before it can be used, or be asked wrongly."""
    name, subset, content, expected = CASES[case]
    first = read_file(case.partition("-")[0], written(tmp_path, name, content), subset)[0]
    assert (first.fields, first.choices, first.answer, first.references) == expected


def test_every_format_has_a_case():
    """A format could break, and nobody would notice."""
    assert {case.partition("-")[0] for case in CASES} == set(FORMATS)


def test_what_belongs_together_is_one_cluster(tmp_path):
    """Questions about one paragraph would count as independent, and an interval be too narrow."""
    first, second = read_file("squad", written(tmp_path, "a.json", SQUAD))
    assert first.document == second.document == "Tea#0"
    assert second.references == ("unanswerable",)


def test_code_of_a_published_format_is_run(tmp_path):
    """An item's tests would never be called."""
    from test_evals_tasks import Likes, Plain

    from evals.scoring import Scorer
    from evals.tasks.running import prepared

    path = written(tmp_path, "a.jsonl", [CODE])
    text = f'kind = "generate"\n[items]\nformat = "humaneval"\npath = "{path}"\n'
    text += '[prompt]\ncontext = "{prompt}"\n'
    task = parse_task(text + '[generation]\njudged_by = "unit-tests"\n', "t.toml", "t", "/")
    items = read_file("humaneval", task.path(task.items.path))
    assert context_of(task, items[0]) == CODE["prompt"]
    for body, right in (("    return x", 1), ("    return 3", 0)):
        result, _ = run(prepared(task, items), Scorer(Likes(answers=(body,)), Plain()))
        assert result["value"] == right


def test_preferences_without_a_right_answer_are_shares(tmp_path):
    """A measure of bias would be called an accuracy."""
    from test_evals_tasks import Likes, Plain

    from evals.scoring import Scorer
    from evals.tasks.running import prepared

    path = written(tmp_path, "a.json", STEREOSET)
    text = 'kind = "multiple-choice"\n[items]\nformat = "stereoset"\npath = "x"\n'
    question = prepared(parse_task(text, "t.toml", "t", ""), read_file("stereoset", path))
    result, scores = run(question, Scorer(Likes("z"), Plain()))
    assert result["unit"] == "share that prefers stereotype to anti-stereotype"
    assert (result["value"], scores.rows[0]["gold"]) == (0, None)
    model = Likes("u")
    model.token = ord("u")
    result, _ = run(question, Scorer(model, Plain()))
    assert (result["value"], result["likeliest"]) == (1, {"stereotype": 1.0})


@pytest.mark.parametrize(
    ("name", "file", "content", "said"),
    [
        ("hellaswag", "a.jsonl", [{"ctx": "a", "label": 0}], r"a\.jsonl:1: field 'endings' is missing"),
        ("jsonl", "a.jsonl", '{"a": 1}\n\n{"b":\n', r"a\.jsonl:3: is not JSON"),
        ("jsonl", "a.jsonl", "[1]\n", r"a\.jsonl:1: is not an object"),
        (
            "arc",
            "a.jsonl",
            [{"question": "?", "choices": {"text": [], "label": []}, "answerKey": "E"}],
            "row of arc",
        ),
        ("gsm8k", "a.jsonl", [{"question": "?", "answer": "42"}], r"a\.jsonl:1: .*'####'"),
        ("mmlu", "a.csv", "q,a,b,c,d,A\nq,a\n", r"a\.csv:2: field '2' is missing"),
        ("toxigen", "a.jsonl", [{"text": "a"}], "field 'label' is missing"),
    ],
)
def test_a_row_that_is_none_is_told_by_file_line_and_field(name, file, content, said, tmp_path):
    """A user would search a file of thousands of rows."""
    with pytest.raises(DataError, match=said):
        read_file(name, written(tmp_path, file, content))


def test_names_that_there_are_not():
    """A typing error would be a traceback."""
    with pytest.raises(ConfigError, match="no format 'helaswag'") as error:
        read_file("helaswag", Path("x"))
    assert "hellaswag" in error.value.fix
    with pytest.raises(Unreadable, match="cannot be read"):
        read_file("jsonl", Path("/none.jsonl"))
