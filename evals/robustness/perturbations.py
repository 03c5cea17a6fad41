"""Changes to a text that leave its meaning: what people type, and how else a question may be put.

Each is a pure function of (text, seed): the same changes in every run, on every machine and for every model,
so that models are compared on the same changed items. Digits and short words stay as they are, since a change
of those may well change the answer.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from seedbed.randomness import generator

TYPO_RATE = 0.1
"""Share of the words that have an error."""
MIN_LETTERS = 4

_WORD = re.compile(rf"[^\W\d_]{{{MIN_LETTERS},}}")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
TEMPLATES = {
    "question_answer": "Question: {text}\nAnswer:",
    "q_a": "Q: {text}\nA:",
    "instruction": "Answer the following.\n\n{text}\n\nAnswer:",
    "bare": "{text}\n",
}


@dataclass(frozen=True)
class Perturbation:
    """A named change."""

    name: str
    kind: str
    """typos, case, space or template."""
    change: Callable[[str, int], str]

    def __call__(self, text: str, seed: int = 0) -> str:
        return self.change(text, seed)


def _neighbours() -> dict[str, str]:
    """The keys beside and diagonally below or above each letter of an American keyboard."""
    found = {letter: "" for row in _ROWS for letter in row}
    for line, row in enumerate(_ROWS):
        for place, letter in enumerate(row):
            # Each row of keys stands half a key to the right of the one above it.
            spots = [(line, place - 1), (line, place + 1), (line - 1, place), (line - 1, place + 1)]
            spots += [(line + 1, place - 1), (line + 1, place)]
            for other, column in spots:
                if 0 <= other < len(_ROWS) and 0 <= column < len(_ROWS[other]):
                    found[letter] += _ROWS[other][column]
    return found


NEIGHBOURS = _neighbours()


def _with_typos(name: str, err: Callable[[str, int, np.random.Generator], str]) -> Perturbation:
    """One error in some of the words; `err` makes it at a place that is neither end of the word."""

    def change(text: str, seed: int) -> str:
        draw = generator(seed, name, text)

        def worsened(match: re.Match[str]) -> str:
            word = match[0]
            if draw.random() >= TYPO_RATE:
                return word
            return err(word, int(draw.integers(1, len(word) - 1)), draw)

        return _WORD.sub(worsened, text)

    return Perturbation(name, "typos", change)


def _swap(word: str, place: int, draw: np.random.Generator) -> str:
    place = min(place, len(word) - 3)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def _drop(word: str, place: int, draw: np.random.Generator) -> str:
    return word[:place] + word[place + 1 :]


def _double(word: str, place: int, draw: np.random.Generator) -> str:
    return word[: place + 1] + word[place:]


def _slip(word: str, place: int, draw: np.random.Generator) -> str:
    near = NEIGHBOURS.get(word[place].lower())
    if near is None:
        return word
    hit = near[int(draw.integers(len(near)))]
    return word[:place] + (hit.upper() if word[place].isupper() else hit) + word[place + 1 :]


def _mixed_case(text: str, seed: int) -> str:
    draw = generator(seed, "mixed_case", text)
    flips = draw.random(len(text)) < 0.5
    return "".join(c.swapcase() if flip else c for c, flip in zip(text, flips.tolist(), strict=True))


def _more_space(text: str, seed: int) -> str:
    """Some single spaces become two or three; indentation and line ends stay, since code lives by them."""
    draw = generator(seed, "more_space", text)
    return re.sub(r"(?<=\S) (?=\S)", lambda _: " " * int(draw.choice([1, 1, 2, 3])), text)


def _trimmed_lines(text: str, seed: int) -> str:
    """No empty lines, and no space at the ends of lines."""
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())


def _in_template(name: str, template: str) -> Perturbation:
    return Perturbation(f"template_{name}", "template", lambda text, seed: template.replace("{text}", text))


PERTURBATIONS: dict[str, Perturbation] = {
    one.name: one
    for one in (
        _with_typos("swapped_letters", _swap),
        _with_typos("dropped_letters", _drop),
        _with_typos("doubled_letters", _double),
        _with_typos("neighbouring_keys", _slip),
        Perturbation("upper_case", "case", lambda text, seed: text.upper()),
        Perturbation("lower_case", "case", lambda text, seed: text.lower()),
        Perturbation("mixed_case", "case", _mixed_case),
        Perturbation("more_space", "space", _more_space),
        Perturbation("trimmed_lines", "space", _trimmed_lines),
        *(_in_template(name, template) for name, template in TEMPLATES.items()),
    )
}
"""Every one by its name. Templates are for questions: each takes the place of the task's own."""
