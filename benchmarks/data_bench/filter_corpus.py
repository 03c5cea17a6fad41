"""Documents for comparing quality filters: Python's own library, and web-like pages made from its sentences.

Each kind of page provokes one rule of a filter, from just inside to far outside it, so that a corpus holds
pages that each rule rejects and many that all of them keep.
"""

import ast
import itertools
import random
import re
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

Page = Callable[[random.Random, list[str]], str]

_MENU = [
    "Home",
    "About",
    "Contact",
    "Products",
    "Login",
    "Register",
    "Search",
    "Help",
    "Blog",
    "News",
    "Sitemap",
    "Careers",
    "Press",
]
_UNICODE = [
    "Le café était très agréable, mais l'hôtel n'était pas à la hauteur.",
    "Das Gerät funktioniert über größere Entfernungen – jedenfalls meistens.",
    "Η ταχύτητα του φωτός είναι σταθερή.",
    "Это предложение написано по-русски, и оно довольно длинное.",
    "日本語の文章です。次の文もあります。",
    "He said: “It’s the best — really!” 😀",
    "यह एक वाक्य है। यह दूसरा है।",
    "naïve-coöperation costs 5€ or £10.50, i.e. 12.5% of the U.S. price.",
    "Zero\u200bwidth and no\u00a0break spaces\u3000are here, too.",
]


_SUBJECTS = [
    "the gardener",
    "a quiet engineer",
    "our neighbour",
    "the old library",
    "every child",
    "the river",
    "my sister",
    "a letter",
]
_VERBS = [
    "remembers",
    "has painted",
    "will open",
    "could not find",
    "writes about",
    "walks to",
    "is fond of",
    "has lost",
]
_OBJECTS = [
    "the green door",
    "a box of maps",
    "the last train",
    "that song",
    "an answer",
    "the harbour",
    "bread and salt",
    "a lamp",
]
_ENDS = [
    "in the morning",
    "with great care",
    "before the winter",
    "and nobody knows why",
    "for the third time",
    "to be sure",
]


def documents(num_pages: int, num_files: int, seed: int = 0) -> list[str]:
    """`num_files` pieces of the standard library and `num_pages` made pages: the same for the same Python.

    Without files, pages are made of sentences from a small grammar, the same everywhere.
    """
    draw = random.Random(seed)
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    files = [path for path in files if "site-packages" not in path.parts and "lib2to3/tests" not in str(path)]
    chosen = draw.sample(files, min(num_files, len(files)))
    sources = [path.read_text(encoding="utf-8", errors="ignore") for path in chosen]
    docstrings = [text for source in sources for text in _docstrings(source)]
    sentences = (
        sorted({sentence for text in docstrings for sentence in _sentences(text)}) or _made_sentences()
    )
    pieces = [source[:20_000] for source in sources]
    pieces += draw.sample(docstrings, min(num_files, len(docstrings)))
    kinds = list(PAGES.values())
    pages = [kinds[index % len(kinds)](draw, sentences) for index in range(num_pages)]
    return [text for text in pieces + pages if text]


def _made_sentences() -> list[str]:
    parts = itertools.product(_SUBJECTS, _VERBS, _OBJECTS, _ENDS)
    return [f"{' '.join(words).capitalize()}." for words in parts]


def _docstrings(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) > 200:
                yield text


def _sentences(text: str) -> Iterator[str]:
    flat = re.sub(r"\s+", " ", text)
    for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", flat):
        words = len(sentence.split())
        marks = sum(not (character.isalpha() or character.isspace()) for character in sentence)
        if 5 <= words <= 40 and marks <= 0.15 * words + 1 and sentence[0].isalpha() and sentence[-1] in ".!?":
            yield sentence


def _paragraphs(draw: random.Random, sentences: list[str], count: int) -> list[str]:
    return [" ".join(draw.choices(sentences, k=draw.randint(2, 6))) for _ in range(count)]


def _article(draw: random.Random, sentences: list[str]) -> str:
    return draw.choice(["\n", "\n\n"]).join(_paragraphs(draw, sentences, draw.randint(3, 14)))


def _short(draw: random.Random, sentences: list[str]) -> str:
    return " ".join(draw.choices(sentences, k=draw.randint(1, 5)))


def _with_lines(*lines: str) -> Page:
    """An article with some of `lines` strewn in."""

    def page(draw: random.Random, sentences: list[str]) -> str:
        body = _paragraphs(draw, sentences, draw.randint(3, 14))
        for _ in range(draw.randint(1, 4)):
            body.insert(draw.randint(0, len(body)), draw.choice(lines))
        return "\n".join(body)

    return page


def _menu(draw: random.Random, sentences: list[str]) -> str:
    entries = draw.choices(_MENU, k=draw.randint(3, 30))
    return "\n".join(entries + _paragraphs(draw, sentences, draw.randint(1, 8)))


def _bullets(draw: random.Random, sentences: list[str]) -> str:
    mark = draw.choice(["- ", "• ", "  - ", "* "])
    items = [mark + sentence for sentence in draw.choices(sentences, k=draw.randint(5, 30))]
    return "\n".join(items + _paragraphs(draw, sentences, draw.randint(0, 3)))


def _ellipses(draw: random.Random, sentences: list[str]) -> str:
    share, mark = draw.random(), draw.choice(["...", "…", " ... ", "...."])
    lines = draw.choices(sentences, k=draw.randint(6, 30))
    return "\n".join(line.rstrip(".") + mark if draw.random() < share else line for line in lines)


def _hashes(draw: random.Random, sentences: list[str]) -> str:
    share = draw.random() * 0.3
    words = " ".join(_paragraphs(draw, sentences, 4)).split(" ")
    return " ".join("#" + word if draw.random() < share else word for word in words)


def _repeated(draw: random.Random, sentences: list[str]) -> str:
    """Repeats lines, paragraphs or sentences."""
    few = draw.choices(sentences, k=draw.randint(3, 12))
    many = draw.choices(sentences, k=draw.randint(10, 40)) + draw.choices(few, k=draw.randint(1, 20))
    draw.shuffle(many)
    return draw.choice(["\n", "\n\n", " ", "\n \n"]).join(many)


def _phrase(draw: random.Random, sentences: list[str]) -> str:
    """Repeats a phrase of a few words inside different sentences."""
    phrase = " ".join(draw.choice(sentences).split()[: draw.randint(2, 11)])
    lines = draw.choices(sentences, k=draw.randint(8, 30))
    return " ".join(f"{line} {phrase}" if draw.random() < 0.5 else line for line in lines)


def _table(draw: random.Random, sentences: list[str]) -> str:
    rows = [f"{draw.random():.3f} | {draw.randint(1, 99999)} | {draw.choice(_MENU)}" for _ in range(20)]
    return "\n".join(rows[: draw.randint(1, 20)] + _paragraphs(draw, sentences, draw.randint(1, 6)))


def _unpunctuated(draw: random.Random, sentences: list[str]) -> str:
    share = draw.random()
    lines = draw.choices(sentences, k=draw.randint(6, 30))
    return "\n".join(line.rstrip(".!?") if draw.random() < share else line for line in lines)


def _long_words(draw: random.Random, sentences: list[str]) -> str:
    words = " ".join(_paragraphs(draw, sentences, 3)).split(" ")
    glue = draw.randint(1, 4)
    return " ".join("".join(words[at : at + glue]).replace(".", "") for at in range(0, len(words), glue))


def _letters(draw: random.Random, sentences: list[str]) -> str:
    words = " ".join(_paragraphs(draw, sentences, 4)).split(" ")
    return " ".join(word[: draw.randint(1, 4)] for word in words)


def _unicode(draw: random.Random, sentences: list[str]) -> str:
    return draw.choice(["\n", " "]).join(draw.sample(_UNICODE, 5) + draw.choices(sentences, k=12))


def _citations(draw: random.Random, sentences: list[str]) -> str:
    marks = ["[1]", "[23]", "[edit]", "[citation needed]", "[]", "", "[a]"]
    return "\n".join(
        " ".join(line[:-1] + draw.choice(marks) + line[-1] + draw.choice(marks) for line in lines.split("\n"))
        for lines in draw.choices(sentences, k=draw.randint(5, 20))
    )


def _without_stop_words(draw: random.Random, sentences: list[str]) -> str:
    text = _article(draw, sentences)
    return re.sub(r"\b(the|be|to|of|and|that|have|with)\b", "", text) + draw.choice(["", " the", " of the"])


def _spread_out(draw: random.Random, sentences: list[str]) -> str:
    """Few words and many line feeds."""
    lines = draw.choices(sentences, k=draw.randint(8, 30))
    return ("\n" * draw.randint(2, 9)).join(lines)


PAGES: dict[str, Page] = {
    "article": _article,
    "short": _short,
    "menu": _menu,
    "bullets": _bullets,
    "ellipses": _ellipses,
    "hashes": _hashes,
    "repeated": _repeated,
    "phrase": _phrase,
    "table": _table,
    "unpunctuated": _unpunctuated,
    "long words": _long_words,
    "letters": _letters,
    "unicode": _unicode,
    "citations": _citations,
    "no stop words": _without_stop_words,
    "spread out": _spread_out,
    "lorem ipsum": _with_lines(
        "Lorem ipsum dolor sit amet, consectetur adipiscing.", "The lorem ipsum here."
    ),
    "curly": _with_lines("if (a) { return b; }", "Write {name} in the box.", "function() {"),
    "script": _with_lines("Please enable JavaScript to see this page.", "JAVASCRIPT is needed for it.", "ok"),
    "policy": _with_lines(
        "This site uses cookies to serve you better.",
        "Read our Privacy Policy and Terms of Use.",
        "x" * 1200 + ".",
    ),
    "shop": _with_lines(
        "https://shop.example.com/item-1/a-b?x=y-z $5.00 10km", "Mr. Smith paid $1,000.50 at 5p.m."
    ),
}
