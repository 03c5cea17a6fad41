"""Files of published benchmarks -> items.

    jsonl       {"id"?, "choices"?, "answer"?, "references"?, "tests"?, ...}; templates name the others
    mmlu        CSV without a header (question, four choices, letter), or {"question", "choices", "answer"}
    arc         {"question": {"stem", "choices"}, "answerKey"}, or
                {"question", "choices": {"text", "label"}, "answerKey"}
    hellaswag   {"ctx", "activity_label", "endings", "label"}
    gsm8k       {"question", "answer": "... #### 42"}
    humaneval   {"prompt", "test", "entry_point", "canonical_solution"}
    squad       one JSON document: data, paragraphs, qas
    glue        TSV with a header; `subset` is cola, sst2, mrpc, qqp, mnli, qnli, rte or wnli
    wmt         {"translation": {language: text}}, or TSV of two columns; `subset` is such as "de-en"
    stereoset   one JSON document: data, intrasentence or intersentence (`subset`), sentences with gold labels
    toxigen     {"text" or "generation", "label" or "prompt_label"}: 1 is toxic

Rows are read from JSON Lines, a JSON list, CSV or TSV, by suffix. A row that lacks what its format has is a
DataError that names file, line and field.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from evals.tasks.items import TaskItem
from seedbed.errors import ConfigError, DataError, Unreadable, did_you_mean

GLUE: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    # fields of the text, field of the label, what its values mean in order
    "cola": (("sentence",), "label", ("unacceptable", "acceptable")),
    "sst2": (("sentence",), "label", ("negative", "positive")),
    "mrpc": (("sentence1", "sentence2"), "label", ("no", "yes")),
    "qqp": (("question1", "question2"), "label", ("no", "yes")),
    "mnli": (("premise", "hypothesis"), "label", ("True", "Neither", "False")),
    "qnli": (("question", "sentence"), "label", ("yes", "no")),
    "rte": (("sentence1", "sentence2"), "label", ("True", "False")),
    "wnli": (("sentence1", "sentence2"), "label", ("False", "True")),
}
GLUE_NAMES = {
    "entailment": 0, "neutral": 1, "contradiction": 2, "not_entailment": 1,
}  # fmt: skip
"""Labels that its files spell out, as the numbers that they stand for."""
ALSO_CALLED = {
    "Quality": "label", "is_duplicate": "label", "gold_label": "label",
    "#1 String": "sentence1", "#2 String": "sentence2",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row of a file, which can say where it stands."""

    where: str
    number: int
    values: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        if name not in self.values:
            raise DataError(f"{self.where}: field {name!r} is missing", "correct the row, or name its format")
        return self.values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The field, if there is one."""
        return self.values.get(name, default)

    def id(self, *names: str) -> str:
        """The first of these fields that there is; the row's number otherwise."""
        return str(next((self.values[name] for name in names if name in self.values), self.number))


def read_file(name: str, path: Path, subset: str = "") -> list[TaskItem]:
    """The items of a file in the format `name`."""
    if name not in FORMATS:
        hint = did_you_mean(name, FORMATS, f"there are: {', '.join(FORMATS)}")
        raise ConfigError(f"items.format: there is no format {name!r}", hint)
    items: list[TaskItem] = []
    for row in _rows(path, name):
        try:
            items += FORMATS[name](row, subset)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise DataError(
                f"{row.where}: is not a row of {name}: {type(error).__name__}: {error}", "correct the row"
            ) from None
    return items


def _rows(path: Path, name: str) -> Iterator[Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Unreadable.because(path, error) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}", "save it as UTF-8") from None
    lines = text.splitlines()
    if path.suffix in (".csv", ".tsv"):
        is_tsv = path.suffix == ".tsv"
        table = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if is_tsv else csv.reader(lines)
        header = None if name in ("mmlu", "wmt") else next(table, [])
        for cells in table:
            names = header or [str(number) for number in range(len(cells))]
            named = {ALSO_CALLED.get(key, key): cell for key, cell in zip(names, cells, strict=False)}
            yield Row(f"{path}:{table.line_num}", table.line_num, named)
        return
    if path.suffix == ".json":
        value = _json(text, str(path))
        values = value if isinstance(value, list) else [value]
        places = [f"{path}: row {number}" for number in range(len(values))]
    else:
        kept = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        places = [f"{path}:{number}" for number, _ in kept]
        values = [_json(line, f"{path}:{number}") for number, line in kept]
    for number, (where, value) in enumerate(zip(places, values, strict=True)):
        if not isinstance(value, dict):
            raise DataError(f"{where}: is not an object", "write one object for each item")
        yield Row(where, number, value)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not JSON: {error}", "correct it") from None


def _plain(row: Row, subset: str) -> Iterator[TaskItem]:
    known = {"id", "choices", "answer", "references", "tests", "labels", "document", "source"}
    answer = row.get("answer")
    references = row.get("references", [answer] if isinstance(answer, str) else [])
    yield TaskItem(
        row.id("id"),
        {key: str(value) for key, value in row.values.items() if key not in known},
        tuple(map(str, row.get("choices", []))),
        answer if isinstance(answer, int) else None,
        tuple(map(str, row.get("labels", []))),
        tuple(map(str, references)),
        tuple(map(str, row.get("tests", []))),
        document=str(row.get("document", row.id("id"))),
        source=str(row.get("source", "")),
    )


def _mmlu(row: Row, subset: str) -> Iterator[TaskItem]:
    if "0" in row.values:
        question, *choices, letter = (row[str(number)] for number in range(6))
        answer = ascii_uppercase.index(letter.strip())
    else:
        question, choices, answer = row["question"], row["choices"], row["answer"]
        answer = answer if isinstance(answer, int) else ascii_uppercase.index(answer)
    source = str(row.get("subject", ""))
    yield TaskItem(row.id("id"), {"question": question}, tuple(choices), answer, source=source)


def _arc(row: Row, subset: str) -> Iterator[TaskItem]:
    question = row["question"]
    if isinstance(question, dict):
        found = [(one["text"], one["label"]) for one in question["choices"]]
        question = question["stem"]
    else:
        found = list(zip(row["choices"]["text"], row["choices"]["label"], strict=True))
    labels = [label for _, label in found]
    answer = labels.index(row["answerKey"])
    yield TaskItem(row.id("id"), {"question": question}, tuple(text for text, _ in found), answer)


def _hellaswag(row: Row, subset: str) -> Iterator[TaskItem]:
    label = row.get("activity_label")
    context = f"{label}: {row['ctx']}" if label else row["ctx"]
    yield TaskItem(
        row.id("ind", "id"),
        {"context": _without_headings(context)},
        tuple(_without_headings(ending) for ending in row["endings"]),
        int(row["label"]),
        document=str(row.get("source_id", row.id("ind", "id"))),
        source=str(label or ""),
    )


def _without_headings(text: str) -> str:
    """WikiHow's "[title]" ends a sentence, its other marks stand for nothing."""
    text = re.sub(r"\[[^\]]*\]", "", text.strip().replace(" [title]", ". "))
    return re.sub(r" {2,}", " ", text)


def _gsm8k(row: Row, subset: str) -> Iterator[TaskItem]:
    reasoning, marks, answer = row["answer"].rpartition("####")
    if not marks:
        raise ValueError("the answer has no '####' before its number")
    fields = {"question": row["question"], "reasoning": re.sub(r"<<[^>]*>>", "", reasoning).strip()}
    yield TaskItem(row.id("id"), fields, references=(answer.strip().replace(",", ""),))


def _humaneval(row: Row, subset: str) -> Iterator[TaskItem]:
    yield TaskItem(
        row.id("task_id", "id"),
        {"prompt": row["prompt"]},
        references=(str(row.get("canonical_solution", "")),),
        tests=(f"{row['test']}\n\ncheck({row['entry_point']})",),
        around=(row["prompt"], "\n"),
    )


def _squad(row: Row, subset: str) -> Iterator[TaskItem]:
    for article in row["data"]:
        for number, paragraph in enumerate(article["paragraphs"]):
            for asked in paragraph["qas"]:
                answers = [one["text"] for one in asked["answers"]]
                yield TaskItem(
                    str(asked["id"]),
                    {"context": paragraph["context"], "question": asked["question"]},
                    # Where the paragraph has no answer, the right one says so.
                    references=tuple(dict.fromkeys(answers)) or ("unanswerable",),
                    document=f"{article.get('title', '')}#{number}",
                    source=str(article.get("title", "")),
                )


def _glue(row: Row, subset: str) -> Iterator[TaskItem]:
    if subset not in GLUE:
        raise ConfigError(f"items.subset: GLUE has no {subset!r}", f"there are: {', '.join(GLUE)}")
    names, label, meanings = GLUE[subset]
    value = str(row[label]).strip()
    answer = GLUE_NAMES[value] if value in GLUE_NAMES else int(value)
    fields = {name: str(row[name]) for name in names}
    yield TaskItem(row.id("idx", "index", "id"), fields, meanings, answer)


def _wmt(row: Row, subset: str) -> Iterator[TaskItem]:
    first, dash, second = subset.partition("-")
    if not (dash and first and second):
        raise ConfigError(f"items.subset: {subset!r} names no two languages", 'for example "de-en"')
    texts = (row["0"], row["1"]) if "0" in row.values else (row["translation"][c] for c in (first, second))
    source, target = texts
    fields = {"source": source, "source_language": first, "target_language": second}
    yield TaskItem(row.id("id"), fields, references=(target,), source=str(row.get("document", "")))


def _stereoset(row: Row, subset: str) -> Iterator[TaskItem]:
    order = ("stereotype", "anti-stereotype", "unrelated")
    kind = subset or "intrasentence"
    for one in row["data"][kind]:
        by_label = {sentence["gold_label"]: sentence["sentence"] for sentence in one["sentences"]}
        yield TaskItem(
            str(one["id"]),
            {"context": one["context"] if kind == "intersentence" else ""},
            tuple(by_label[label] for label in order),
            labels=order,
            document=str(one.get("target", one["id"])),
            source=str(one.get("bias_type", "")),
        )


def _toxigen(row: Row, subset: str) -> Iterator[TaskItem]:
    text = row.get("text") or row["generation"]
    label = row.get("label", row.get("prompt_label"))
    if label is None:
        raise DataError(f"{row.where}: field 'label' is missing", "give it 1 for toxic, 0 for not")
    source = str(row.get("target_group", row.get("group", "")))
    yield TaskItem(row.id("id"), {"text": text}, ("no", "yes"), int(float(label) >= 0.5), source=source)


FORMATS: dict[str, Callable[[Row, str], Iterator[TaskItem]]] = {
    "jsonl": _plain,
    "mmlu": _mmlu,
    "arc": _arc,
    "hellaswag": _hellaswag,
    "gsm8k": _gsm8k,
    "humaneval": _humaneval,
    "squad": _squad,
    "glue": _glue,
    "wmt": _wmt,
    "stereoset": _stereoset,
    "toxigen": _toxigen,
}
