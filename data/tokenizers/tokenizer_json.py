"""Tokenizers of a tokenizer.json, run by `tokenizers`: BPE, Unigram, WordPiece and WordLevel.

A byte-level BPE whose vocabulary holds all 256 bytes, and which nothing normalises, gives every text back
as it was. The others say why they do not, see `Tokenizer.lossy_because`.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import pre_tokenizers

from data.tokenizers.base import AUTO, Tokenizer, end_of_text_of
from data.tokenizers.encoders import Encoder, Flat, flat
from data.tokenizers.gigatoken import from_json
from data.tokenizers.word_cache import WordCache
from seedbed.errors import DataError
from seedbed.files import digest_of

TOKENIZER_JSON = "tokenizer.json"
SEPARATOR = "[SEP]"

# Unset, the library warns at every fork. Its threads do not survive a fork, so a child that used
# them would wait for ever: it works alone, whatever the parent does.
_PARALLELISM = "TOKENIZERS_PARALLELISM"
os.environ.setdefault(_PARALLELISM, "true")
os.register_at_fork(after_in_child=lambda: os.environ.update({_PARALLELISM: "false"}))

_KINDS = {"BPE": "bpe", "Unigram": "unigram", "WordPiece": "wordpiece", "WordLevel": "word-level"}
_BYTE = re.compile("<0x[0-9A-F]{2}>")


class JsonTokenizer(Tokenizer):
    """`definition` is the content of a tokenizer.json, `origin` names it in errors."""

    file_name = TOKENIZER_JSON

    def __init__(self, definition: str, origin: str, encoder: str = AUTO) -> None:
        self._definition = definition
        self._encoder_choice = encoder
        self._parsed, self._backend = _parse(definition, origin)
        self._text_backend = _for_text(self._backend)
        self.kind = _kind(self._parsed, self._backend)
        self.vocab_size = max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        added = self._backend.get_added_tokens_decoder()
        self.special_ids = {token.content: id for id, token in sorted(added.items()) if token.special}
        wordpiece = self.kind == "wordpiece" and SEPARATOR in self.special_ids
        self.end_of_text = SEPARATOR if wordpiece else end_of_text_of(self.special_ids, origin)
        self.fingerprint = _fingerprint(self._parsed)
        self.lossy_because = _lossy_because(self._parsed, self.kind)

    def __contains__(self, token: str) -> bool:
        return self._backend.token_to_id(token) is not None

    def encode(self, text: str) -> list[int]:
        return self._text_backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._text_backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        return self._backend.decode([int(id) for id in ids], skip_special_tokens=False)

    def byte_lengths(self) -> NDArray[np.int64]:
        lengths = np.zeros(self.vocab_size, dtype=np.int64)
        for token, id in self._backend.get_vocab(with_added_tokens=False).items():
            lengths[id] = _num_bytes(token, self.kind)
        for id, added in self._backend.get_added_tokens_decoder().items():
            lengths[id] = 0 if added.special else len(added.content.encode())
        return lengths

    def to_bytes(self) -> bytes:
        return self._definition.encode()

    def _exact_encoder(self) -> Encoder:
        return _OneByOne(self._text_backend)

    def _fast_encoder(self, exact: Encoder) -> Encoder | None:
        if self.kind in ("byte-bpe", "bpe"):
            return from_json(self._without_special_tokens(), exact)
        if _separates_words(self._parsed):
            return WordCache(self._text_backend, self._parsed["normalizer"]["handle_chinese_chars"])
        return None

    def _without_special_tokens(self) -> str:
        parsed = self._parsed
        if not _is_modern(parsed["model"]):
            # As the library spells it today: older files leave fields out, or spell merges in one string.
            parsed = json.loads(self._backend.to_str())
        added = [token for token in parsed["added_tokens"] if not token["special"]]
        return json.dumps(parsed | {"added_tokens": added, "post_processor": None})


def _is_modern(model: dict[str, Any]) -> bool:
    return (
        "type" in model and "ignore_merges" in model and isinstance(next(iter(model["merges"]), None), list)
    )


class _OneByOne:
    """The library itself, on one thread: it would divide a batch among all cores."""

    name = f"tokenizers {version('tokenizers')}"

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend

    def __call__(self, texts: Sequence[str]) -> Flat:
        encodings = (self._backend.encode_batch_fast([text], add_special_tokens=False)[0] for text in texts)
        return flat([np.array(encoding.ids, dtype=np.uint32) for encoding in encodings])


def _parse(definition: str, origin: str) -> tuple[dict[str, Any], tokenizers.Tokenizer]:
    try:
        parsed = json.loads(definition)
        backend = tokenizers.Tokenizer.from_str(definition)
    except Exception as error:  # the library raises bare Exception
        raise DataError(
            f"{origin}: not a tokenizer.json ({error})", "give a tokenizer.json that `tokenizers` can read"
        ) from error
    if parsed["model"].get("dropout"):
        raise DataError(
            f"{origin}: its BPE dropout would make the ids of a text a matter of chance",
            'set "dropout" to null in it',
        )
    return parsed, backend


def _for_text(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """What encodes: text that spells out a special token stays text."""
    if type(backend.model).__name__ in ("Unigram", "WordLevel"):
        backend = tokenizers.Tokenizer.from_str(_with_hidden_names(json.loads(backend.to_str())))
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    return backend


def _with_hidden_names(parsed: dict[str, Any]) -> str:
    """The definition with special tokens called what no text contains.

    These models look for every entry of their vocabulary, and special tokens are among them.
    """
    model = parsed["model"]
    hidden = {token["content"] for token in parsed["added_tokens"] if token["special"]}
    hidden -= {model.get("unk_token")}

    def name(token: str) -> str:
        return f"\uffff\ufffe{token}" if token in hidden else token

    for token in parsed["added_tokens"]:
        token["content"] = name(token["content"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {name(token): id for token, id in model["vocab"].items()}
    else:
        model["vocab"] = [[name(token), score] for token, score in model["vocab"]]
    return json.dumps(parsed | {"post_processor": None})


def _kind(parsed: dict[str, Any], backend: tokenizers.Tokenizer) -> str:
    if "ByteLevel" in _types_in(parsed.get("pre_tokenizer")) | _types_in(parsed.get("decoder")):
        return "byte-bpe"
    return _KINDS[type(backend.model).__name__]


def _lossy_because(parsed: dict[str, Any], kind: str) -> str:
    if kind != "byte-bpe":
        return f"it is a {kind} tokenizer, which may change or drop characters"
    if not set(pre_tokenizers.ByteLevel.alphabet()) <= parsed["model"]["vocab"].keys():
        return "some bytes have no token"
    if parsed.get("normalizer") is not None:
        return "it normalises text"
    if "ByteLevel" not in _types_in(parsed.get("decoder")):
        return "its decoder does not turn tokens back into bytes"
    if _adds_space(parsed.get("pre_tokenizer")):
        return "it puts a space before the text"
    if any(token["lstrip"] or token["rstrip"] for token in parsed["added_tokens"] if not token["special"]):
        return "it has added tokens that swallow the spaces around them"
    return ""


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


def _separates_words(parsed: dict[str, Any]) -> bool:
    """Whether this is BERT's normaliser and pre-tokenizer, and no added token is looked for across words."""
    components = [(parsed.get(name) or {}).get("type") for name in ("normalizer", "pre_tokenizer")]
    return components == ["BertNormalizer", "BertPreTokenizer"] and all(
        token["special"] for token in parsed["added_tokens"]
    )


def _num_bytes(token: str, kind: str) -> int:
    """The bytes of text that a token of this name stands for.

    In a byte-level vocabulary every character of a name stands for one byte; WordPiece marks pieces
    inside words by ##, SentencePiece spells a space "▁" and a lone byte <0x0A>.
    """
    if kind == "byte-bpe":
        return len(token)
    if kind == "wordpiece":
        return len(token.removeprefix("##").encode())
    return 1 if _BYTE.fullmatch(token) else len(token.replace("▁", " ").encode())


def _digest(names: Sequence[str], ids: Sequence[int] = ()) -> str:
    """SHA-256 of many short strings and the ids that go with them: canonical JSON takes ten times as long."""
    digest = hashlib.sha256("\0".join(names).encode())
    digest.update(np.array(ids, dtype="<i8").tobytes())
    return digest.hexdigest()


def _fingerprint(parsed: dict[str, Any]) -> str:
    """SHA-256 over all that decides which ids a text becomes, however the file spells it."""
    model = dict(parsed["model"])
    parts: dict[str, Any] = {part: parsed.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")}
    vocab = model.pop("vocab")
    if isinstance(vocab, dict):
        names = sorted(vocab, key=vocab.__getitem__)
        vocab = _digest(names, [vocab[name] for name in names])
    parts["vocab"] = vocab
    parts["added_tokens"] = sorted(
        [token["id"], token["content"], token["special"]] for token in parsed["added_tokens"]
    )
    parts["ignore_merges"] = bool(model.pop("ignore_merges", False))
    if "merges" in model:
        # Older files spell a merge "a b", newer ones ["a", "b"].
        parts["merges"] = _digest([m if isinstance(m, str) else " ".join(m) for m in model.pop("merges")])
    # What else a model may say; left out where it says nothing, and BPE may leave its own type out.
    rest = {name: value for name, value in model.items() if value and (name, value) != ("type", "BPE")}
    return digest_of(parts | ({"model": rest} if rest else {}))
