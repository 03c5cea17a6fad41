"""Examples for probes: of the texts that a run was trained on or held out, or of files of one's own.

    package          to which package does a passage belong?                       sequence
    next-sentence    does the second sentence follow the first?                    pair
    names            what is each name of a line: keyword, function, parameter...   tagging
    docstring        which of these signatures has this docstring?                 span

A file is JSON Lines: {"text", "label"}, {"first", "second", "label"}, {"words", "tags"}, or {"question",
"context", "answer"}; with "document" where several examples are of one.
"""

import io
import json
import keyword
import tokenize
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from data.examples.messages import Rejected
from data.examples.python_functions import rows_of
from evals.tasks.items import TaskItem
from evals.tasks.local import Text, next_sentence, package
from seedbed.errors import DataError
from seedbed.randomness import generator

Kind = Literal["sequence", "pair", "tagging", "span"]
LINES = (
    '{"text", "label"}, {"first", "second", "label"}, {"words", "tags"}, or {"question", "context", "answer"}'
)
MAX_WORDS, MAX_SIGNATURES, MAX_PER_TEXT = 40, 6, 5


@dataclass(frozen=True)
class Example:
    """Words, perhaps others beside them, and what is to be said of them."""

    id: str
    kind: Kind
    words: tuple[str, ...]
    other: tuple[str, ...] = ()
    """The second sentence; or where the answer is to be found."""
    label: str = ""
    """Of the whole."""
    tags: tuple[str, ...] = ()
    """Of each word."""
    span: tuple[int, int] = (0, 0)
    """The first and the last word of the answer in `other`."""
    document: str = ""
    source: str = ""


def packages(texts: Sequence[Text], seed: int) -> Iterator[Example]:
    """One passage of a text."""
    for item in package(texts, seed):
        label = item.choices[item.answer or 0]
        yield _example(item, "sequence", tuple(item.fields["context"].split()), label=label)


def sentence_pairs(texts: Sequence[Text], seed: int) -> Iterator[Example]:
    """Half of them follow each other; the others are of the same text."""
    for item in next_sentence(texts, seed):
        right = int(generator(seed, "pair", item.id).integers(2))
        wrong = [choice for place, choice in enumerate(item.choices) if place != item.answer]
        if not wrong:
            continue
        second = item.choices[item.answer or 0] if right else wrong[0]
        words = tuple(item.fields["context"].split())
        yield _example(item, "pair", words, other=tuple(second.split()), label="follows" if right else "not")


def names(texts: Sequence[Text], seed: int) -> Iterator[Example]:
    """Runs of a file's tokens, without comments and strings."""
    for one in texts:
        tagged = _tagged(one.text)
        runs = [tagged[start : start + MAX_WORDS] for start in range(0, len(tagged), MAX_WORDS)]
        rng = generator(seed, "names", one.id)
        for number in sorted(rng.permutation(len(runs))[:MAX_PER_TEXT].tolist()):
            words, tags = zip(*runs[number], strict=True)
            yield Example(
                f"{one.id}#{number}", "tagging", words, tags=tags, document=one.id, source=one.package
            )


def docstrings(texts: Sequence[Text], seed: int) -> Iterator[Example]:
    """A docstring's first line asks; the signatures of some functions of the file stand to choose from."""
    for one in texts:
        found = _described(one.text)
        rng = generator(seed, "docstrings", one.id)
        for number in sorted(rng.permutation(len(found))[:MAX_PER_TEXT].tolist()):
            signature, line = found[number]
            others = [found[other][0] for other in rng.permutation(len(found)) if other != number]
            shown = [other for other in dict.fromkeys(others) if other != signature][: MAX_SIGNATURES - 1]
            if not shown:
                continue
            place = int(rng.integers(len(shown) + 1))
            shown.insert(place, signature)
            before = sum(len(text.split()) for text in shown[:place])
            span = (before, before + len(signature.split()) - 1)
            words = tuple(word for text in shown for word in text.split())
            name = f"{one.id}#{number}"
            yield Example(
                name, "span", tuple(line.split()), words, span=span, document=one.id, source=one.package
            )


BUILDERS: dict[str, Callable[[Sequence[Text], int], Iterator[Example]]] = {
    "package": packages,
    "next-sentence": sentence_pairs,
    "names": names,
    "docstring": docstrings,
}


def read_examples(path: Path) -> list[Example]:
    """Those of a file. DataError names the line and what it lacks."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}", "give a file of JSON Lines") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            if not isinstance(row := json.loads(line), dict):
                raise ValueError(f"a {type(row).__name__} is no object")
            found.append(_read(f"{path.name}:{number}", row))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{path}, line {number}: {what}", f"a line is {LINES}") from None
    if not found:
        raise DataError(f"{path} is empty", f"a line is {LINES}")
    if len(kinds := sorted({one.kind for one in found})) != 1:
        raise DataError(
            f"{path} has examples of {len(kinds)} kinds: {', '.join(kinds)}", "give each a file of its own"
        )
    return found


def _read(name: str, row: dict[str, Any]) -> Example:
    document, source = str(row.get("document", name)), str(row.get("source", ""))
    example = partial(Example, name, document=document, source=source)
    if "words" in row:
        words, tags = tuple(map(str, row["words"])), tuple(map(str, row["tags"]))
        if len(words) != len(tags) or not words:
            raise ValueError(f"{len(words)} words have {len(tags)} tags")
        return example("tagging", words, tags=tags)
    if "question" in row:
        context, answer = row["context"].split(), row["answer"].split()
        places = [at for at in range(len(context)) if answer and context[at : at + len(answer)] == answer]
        if not places:
            raise ValueError("the answer does not stand in the context as words between spaces")
        span = (places[0], places[0] + len(answer) - 1)
        return example("span", tuple(row["question"].split()), tuple(context), span=span)
    if "first" in row:
        first, second = tuple(row["first"].split()), tuple(row["second"].split())
        return example("pair", first, second, label=str(row["label"]))
    return example("sequence", tuple(row["text"].split()), label=str(row["label"]))


def _example(item: TaskItem, kind: Kind, words: tuple[str, ...], **more: Any) -> Example:
    return Example(item.id, kind, words, document=item.document, source=item.source, **more)


def _tagged(text: str) -> list[tuple[str, str]]:
    """Tokens with what they are; nothing of a text that is no Python."""
    left_out = {tokenize.COMMENT, tokenize.STRING, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
    left_out |= {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    try:
        kept = [
            token
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type not in left_out
        ]
    except (tokenize.TokenError, SyntaxError, ValueError):
        return []
    tagged = []
    for place, token in enumerate(kept):
        before = kept[place - 1].string if place else ""
        after = kept[place + 1].string if place + 1 < len(kept) else ""
        tagged.append((token.string, _tag(token, before, after)))
    return tagged


def _tag(token: tokenize.TokenInfo, before: str, after: str) -> str:
    if token.type == tokenize.NUMBER:
        return "number"
    if token.type != tokenize.NAME:
        return "operator"
    if keyword.iskeyword(token.string):
        return "keyword"
    if before in ("def", "class"):
        return before
    if before == ".":
        return "method" if after == "(" else "attribute"
    return {"(": "call", "=": "assigned"}.get(after, "name")


def _described(text: str) -> list[tuple[str, str]]:
    """(signature, first line of the docstring) of the functions of a file."""
    try:
        prompts = [row["prompt"] for row in rows_of(text)]
    except Rejected:
        return []
    found = []
    for prompt in prompts:
        signature, mark, docstring = prompt.partition(":\n")
        line = docstring.strip().strip("\"'rR").strip().split("\n")[0]
        if mark and line and "\n" not in signature:
            found.append((signature, line))
    return found
