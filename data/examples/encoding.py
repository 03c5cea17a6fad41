"""Conversations to ids: each piece of rendered text by itself, so that an answer begins with a token of its
own.

A special token of the template becomes its id; one that a message spells out stays text, so that nobody can
end a turn from within it. What is encoded together is what a model is given together when it answers: the
prompt is cut from the answer before encoding, not after, and its ids are those of the prompt alone.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from data.examples.messages import Conversation, Message, Rejected
from data.examples.templates import GUARD, Piece, Template
from data.tokenizers import Tokenizer

Span = tuple[int, int]
"""Begin and end (exclusive) of trained tokens, counted from the first of the sequence."""


@dataclass(frozen=True)
class Sequence:
    """A conversation as ids, and which of them are trained."""

    tokens: list[int]
    spans: tuple[Span, ...]
    num_bytes: int
    """UTF-8 bytes of the text, special tokens counted by name."""

    @property
    def num_trained(self) -> int:
        return sum(stop - start for start, stop in self.spans)


class ChatEncoder:
    """A tokenizer and a template."""

    def __init__(self, tokenizer: Tokenizer, template: Template) -> None:
        self.tokenizer, self.template = tokenizer, template
        names = sorted(tokenizer.special_ids, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, names))})") if names else None

    def encode(self, conversation: Conversation) -> Sequence:
        """Raises Rejected when the template refuses it, or when nothing of it, or everything, is trained.

        Answers that were given with weight 0, or that belong to the prompt, are not trained.
        """
        pieces = self.template.pieces(conversation)
        answers = [
            (number, message["weight"])
            for number, message in enumerate(conversation.messages)
            if message["role"] == "assistant"
        ]
        tokens: list[int] = []
        spans: list[Span] = []
        turns = iter(answers)
        for piece in pieces:
            ids = self._ids(piece.text)
            if piece.is_written:
                number, weight = next(turns)
                if weight and number >= conversation.num_given:
                    spans.append((len(tokens), len(tokens) + len(ids)))
            tokens += ids
        sequence = Sequence(tokens, tuple(spans), _num_bytes(pieces))
        if not sequence.num_trained:
            raise Rejected("empty_mask", "no token is trained: its answers are empty, or have weight 0")
        if sequence.num_trained == len(tokens):
            raise Rejected("full_mask", "every token is trained: there is no prompt that the answer answers")
        return sequence

    def prompt(self, messages: Iterable[Message]) -> list[int]:
        """The ids that a model continues with its answer."""
        return [id for piece in self.template.prompt(list(messages)) for id in self._ids(piece.text)]

    def _ids(self, text: str) -> list[int]:
        """Of one piece. The names of special tokens in it are the template's: a message's are guarded."""
        special = self.tokenizer.special_ids
        ids: list[int] = []
        for part in self._special.split(text) if self._special else [text]:
            if part in special:
                ids.append(special[part])
            elif part:
                ids += self.tokenizer.encode(part.replace(GUARD, ""))
        return ids


def _num_bytes(pieces: list[Piece]) -> int:
    return sum(len(piece.text.replace(GUARD, "").encode()) for piece in pieces)
