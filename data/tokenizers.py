"""Text <-> token ids: byte-level BPE, trained here or loaded from a tokenizer.json.

The vocabulary holds all 256 bytes and nothing normalises the text, so every text can be encoded
and comes back as it was. Text that spells out <|endoftext|> is text: the special id marks the end
of documents and is never the result of encoding.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers, trainers

from seedbed.errors import DataError
from seedbed.files import digest_of

END_OF_TEXT = "<|endoftext|>"
KIND = "byte-bpe"

# Unset, the library warns at every fork. Its threads do not survive a fork, so a child that used
# them would wait for ever: it works alone, whatever the parent does.
_PARALLELISM = "TOKENIZERS_PARALLELISM"
os.environ.setdefault(_PARALLELISM, "true")
os.register_at_fork(after_in_child=lambda: os.environ.update({_PARALLELISM: "false"}))


class Tokenizer:
    """A byte-level BPE. `definition` is the content of a tokenizer.json, `origin` names it in errors."""

    def __init__(self, definition: str, origin: str) -> None:
        parsed, self._backend = _parse(definition, origin)
        self._definition = definition
        # Otherwise text that spells out a special token becomes that token.
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        self.end_of_text_id = vocabulary[END_OF_TEXT]
        self.vocab_size = max(vocabulary.values()) + 1
        self.fingerprint = _fingerprint(parsed)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without an end-of-text id."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, on all cores."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special tokens appear by name, a cut-off character as U+FFFD."""
        return self._backend.decode([int(id) for id in ids], skip_special_tokens=False)

    def byte_lengths(self) -> NDArray[np.int64]:
        """[vocab_size]: the bytes of text that each id stands for; special tokens stand for none.

        In a byte-level vocabulary every character of a token's name stands for one byte.
        """
        lengths = np.zeros(self.vocab_size, dtype=np.int64)
        for token, id in self._backend.get_vocab(with_added_tokens=False).items():
            lengths[id] = len(token)
        for id, added in self._backend.get_added_tokens_decoder().items():
            lengths[id] = 0 if added.special else len(added.content.encode())
        return lengths

    def describe(self) -> dict[str, Any]:
        """What a dataset's manifest says of its tokenizer, beside the file's name."""
        return {
            "fingerprint": self.fingerprint,
            "vocab_size": self.vocab_size,
            "kind": KIND,
            "end_of_text": END_OF_TEXT,
            "end_of_text_id": self.end_of_text_id,
        }

    def to_json(self) -> str:
        """The content of the tokenizer.json that `load_tokenizer` reads."""
        return self._definition


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of at most `vocab_size` tokens (Sennrich et al. 2016; Radford et al. 2019).

    Pre-tokens are split as GPT-2 does, without a space put before the text. A text of few
    different words has fewer merges to learn, and gives a smaller vocabulary.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend.to_str(), "the trained tokenizer")


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json; DataError when it is missing or not a lossless byte-level BPE."""
    path = Path(path)
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        definition = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the tokenizer {path}: {error}", "give the path of a tokenizer.json"
        ) from error
    return Tokenizer(definition, str(path))


def _parse(definition: str, origin: str) -> tuple[dict[str, Any], tokenizers.Tokenizer]:
    """The JSON of `definition` and what it builds, if that keeps what this module promises."""

    def refuse(reason: str) -> DataError:
        return DataError(
            f"{origin}: {reason}", "give the tokenizer.json of a byte-level BPE, such as GPT-2's"
        )

    try:
        parsed = json.loads(definition)
        backend = tokenizers.Tokenizer.from_str(definition)
    except Exception as error:  # the library raises bare Exception
        raise refuse(f"not a tokenizer.json ({error})") from error
    model = parsed["model"]
    if model.get("type") != "BPE" or not set(pre_tokenizers.ByteLevel.alphabet()) <= model["vocab"].keys():
        raise refuse("not a byte-level BPE: some bytes have no token, so some text would be lost")
    if parsed.get("normalizer") is not None:
        raise refuse("it normalises text, so text would not come back as it was")
    if "ByteLevel" not in _types_in(parsed.get("decoder")):
        raise refuse("its decoder does not turn tokens back into bytes")
    if _adds_space(parsed.get("pre_tokenizer")):
        raise refuse("it puts a space before the text, so text would not come back as it was")
    if model.get("dropout"):
        raise refuse("its BPE dropout would make the ids of a text a matter of chance")
    if any(token["lstrip"] or token["rstrip"] for token in parsed["added_tokens"] if not token["special"]):
        raise refuse("it has added tokens that swallow the spaces around them")
    if not any(token["content"] == END_OF_TEXT and token["special"] for token in parsed["added_tokens"]):
        raise refuse(f"it has no special token {END_OF_TEXT}")
    return parsed, backend


def _types_in(part: Any) -> set[str]:
    """The types named anywhere inside a component, which may be a sequence of others."""
    if isinstance(part, list):
        return set().union(*map(_types_in, part))
    if isinstance(part, dict):
        own = {part["type"]} if isinstance(part.get("type"), str) else set()
        return own.union(*map(_types_in, part.values()))
    return set()


def _adds_space(part: Any) -> bool:
    if isinstance(part, list):
        return any(map(_adds_space, part))
    if isinstance(part, dict):
        return part.get("add_prefix_space") is True or any(map(_adds_space, part.values()))
    return False


def _fingerprint(parsed: dict[str, Any]) -> str:
    """SHA-256 over all that decides which ids a text becomes, however the file spells it."""
    model = parsed["model"]
    # Older files spell a merge "a b", newer ones ["a", "b"].
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    parts = {part: parsed.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")}
    added = sorted([token["id"], token["content"], token["special"]] for token in parsed["added_tokens"])
    parts["ignore_merges"] = bool(model.get("ignore_merges"))
    return digest_of(parts | {"vocab": model["vocab"], "merges": merges, "added_tokens": added})
