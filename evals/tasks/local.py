"""Items made of texts that are at hand: nothing is downloaded, and the model has not been trained on them.

    text              whole texts, for bits per byte
    cloze             a word of a line is hidden; which of four words of the same text is it?
    next-passage      which of four passages of the same text, or package, comes next?
    next-sentence     the same of sentences in comments and docstrings
    function-body     which of four bodies, of the same file or package, does a docstring describe?
    doctests          functions to complete, judged by the examples of their docstrings: see `doctests.py`
    package           which of four packages is a passage of?

Distractors come from the same source as the answer, so that its topic does not tell it apart. Which items a
text gives is a function of the seed and the text alone.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np

from data.examples.messages import Rejected
from data.examples.python_functions import rows_of
from evals.bits_per_byte import top_level
from evals.tasks.doctests import functions_with_doctests, is_passed_by_its_own_body
from evals.tasks.items import TaskItem
from seedbed.errors import ConfigError, did_you_mean
from seedbed.randomness import generator

NUM_CHOICES = 4
PASSAGE_CHARACTERS = 300
MAX_PER_TEXT = 5
_WORD = re.compile(r"\b[A-Za-z_]\w{3,}\b")
_SENTENCE = re.compile(r"[A-Z][^.!?\n]*(?:\n[^.!?\n]+)*[.!?](?=\s)")


class Text(NamedTuple):
    """A text to make items of."""

    id: str
    source: str
    """A path; its first folder is the package."""
    text: str

    @property
    def package(self) -> str:
        return top_level(self.source)


def whole_texts(texts: Sequence[Text], seed: int) -> Iterator[TaskItem]:
    """Every text that is not empty."""
    for one in texts:
        if one.text:
            yield TaskItem(one.id, {"text": one.text}, document=one.id, source=one.package)


def cloze(texts: Sequence[Text], seed: int) -> Iterator[TaskItem]:
    """What follows the hidden word on its line is part of each choice."""
    for one in texts:
        words = sorted(set(_WORD.findall(one.text)))
        places = [match for match in _WORD.finditer(one.text) if match.start() > PASSAGE_CHARACTERS]
        if len(words) < NUM_CHOICES or not places:
            continue
        rng = generator(seed, "cloze", one.id)
        for number, place in enumerate(rng.permutation(len(places))[:MAX_PER_TEXT]):
            match = places[place]
            end = one.text.find("\n", match.end())
            rest = one.text[match.end() : end if end >= 0 else None]
            others = [word for word in rng.permutation(words).tolist() if word != match[0]]
            context = one.text[match.start() - PASSAGE_CHARACTERS : match.start()]
            yield _item(one, number, {"context": context}, match[0], others, rng, ending=rest)


def next_passage(texts: Sequence[Text], seed: int) -> Iterator[TaskItem]:
    """Passages are whole lines."""
    passages = {one.id: _passages(one.text) for one in texts}
    by_package = _by_package(texts, passages)
    for one in texts:
        own = passages[one.id]
        rng = generator(seed, "next-passage", one.id)
        for number, place in enumerate(rng.permutation(max(0, len(own) - 1))[:MAX_PER_TEXT]):
            before, right = own[place], own[place + 1]
            near = [own[other] for other in rng.permutation(len(own)) if other not in (place, place + 1)]
            others = near if len(near) >= NUM_CHOICES - 1 else near + _mixed(by_package[one.package], rng)
            yield _item(one, number, {"context": before}, right, _unlike(others, (before, right)), rng)


def next_sentence(texts: Sequence[Text], seed: int) -> Iterator[TaskItem]:
    """Two sentences follow each other where white space alone is between them."""
    for one in texts:
        found = [match for match in _SENTENCE.finditer(one.text) if len(match[0]) >= 20]
        pairs = [
            (first, second)
            for first, second in pairwise(found)
            if not one.text[first.end() : second.start()].strip()
        ]
        rng = generator(seed, "next-sentence", one.id)
        for number, place in enumerate(rng.permutation(len(pairs))[:MAX_PER_TEXT]):
            first, second = pairs[place]
            space = one.text[first.end() : second.start()]
            others = [space + found[other][0] for other in rng.permutation(len(found))]
            unlike = _unlike(others, (space + first[0], space + second[0]))
            yield _item(one, number, {"context": first[0]}, space + second[0], unlike, rng)


def function_body(texts: Sequence[Text], seed: int) -> Iterator[TaskItem]:
    """Signature and docstring ask, bodies answer."""
    functions = {one.id: _functions(one.text) for one in texts}
    bodies = {name: [body for _, body in rows] for name, rows in functions.items()}
    by_package = _by_package(texts, bodies)
    for one in texts:
        own = functions[one.id]
        rng = generator(seed, "function-body", one.id)
        for number, place in enumerate(rng.permutation(len(own))[:MAX_PER_TEXT]):
            prompt, body = own[place]
            near = [own[other][1] for other in rng.permutation(len(own))]
            others = _unlike(near + _mixed(by_package[one.package], rng), (body,))
            yield _item(one, number, {"context": prompt}, body, others, rng)


def package(texts: Sequence[Text], seed: int) -> Iterator[TaskItem]:
    """The names of packages are the choices."""
    names = sorted({one.package for one in texts} - {"."})
    for one in texts:
        passages = _passages(one.text)
        if one.package == "." or len(names) < NUM_CHOICES or not passages:
            continue
        rng = generator(seed, "package", one.id)
        others = [name for name in rng.permutation(names).tolist() if name != one.package]
        context = passages[int(rng.integers(len(passages)))]
        yield _item(one, 0, {"context": context}, one.package, others, rng)


def built(name: str, texts: Sequence[Text], seed: int, num: int) -> list[TaskItem]:
    """At most `num` items, drawn by the seed from all that the texts give, in the order of the texts."""
    if name not in BUILDERS:
        raise ConfigError(
            f"items.build: nothing is built as {name!r}",
            did_you_mean(name, BUILDERS, f"there are: {', '.join(BUILDERS)}"),
        )
    made = list(BUILDERS[name](texts, seed))
    # Where a text has too little to draw distractors from, guessing would be too easy.
    whole = [item for item in made if not item.choices or len(item.choices) == NUM_CHOICES]
    order = iter(generator(seed, "items", name).permutation(len(whole)).tolist())
    is_fair = is_passed_by_its_own_body if name == "doctests" else lambda item: True
    chosen = sorted(islice((index for index in order if is_fair(whole[index])), num))
    return [whole[index] for index in chosen]


BUILDERS: dict[str, Callable[[Sequence[Text], int], Iterator[TaskItem]]] = {
    "text": whole_texts,
    "cloze": cloze,
    "next-passage": next_passage,
    "next-sentence": next_sentence,
    "function-body": function_body,
    "package": package,
    "doctests": lambda texts, seed: functions_with_doctests(
        [(one.id, one.source, one.text) for one in texts]
    ),
}


def _item(
    text: Text,
    number: int,
    fields: dict[str, str],
    right: str,
    others: Sequence[str],
    rng: np.random.Generator,
    ending: str = "",
) -> TaskItem:
    """The right choice lies anywhere among the first of `others`."""
    place = int(rng.integers(NUM_CHOICES))
    chosen = [*dict.fromkeys(others)][: NUM_CHOICES - 1]
    chosen.insert(min(place, len(chosen)), right)
    return TaskItem(
        f"{text.id}#{number}",
        fields,
        tuple(choice + ending for choice in chosen),
        chosen.index(right),
        document=text.id,
        source=text.package,
    )


def _unlike(others: Sequence[str], taken: Sequence[str]) -> list[str]:
    return [other for other in others if other.strip() not in {one.strip() for one in taken}]


def _passages(text: str) -> list[str]:
    """Runs of whole lines of `PASSAGE_CHARACTERS` or a little more, blank ones left out."""
    passages, current = [], ""
    for line in text.splitlines(keepends=True):
        current += line
        if len(current) >= PASSAGE_CHARACTERS:
            passages.append(current)
            current = ""
    return [passage for passage in passages if passage.strip() and len(passage) < 4 * PASSAGE_CHARACTERS]


def _functions(text: str) -> list[tuple[str, str]]:
    try:
        rows = list(rows_of(text))
    except Rejected:
        return []
    return [(row["prompt"], row["response"]) for row in rows if len(row["response"]) <= 1000]


def _by_package(texts: Sequence[Text], parts: dict[str, list[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in texts:
        found.setdefault(one.package, []).extend(parts[one.id])
    return found


def _mixed(values: Sequence[str], rng: np.random.Generator) -> list[str]:
    order = rng.permutation(len(values))[: 8 * NUM_CHOICES]
    return [values[index] for index in order]
