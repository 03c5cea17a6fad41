"""From a file or a folder to its tokenizer."""

import hashlib
from pathlib import Path

from data.tokenizers.base import AUTO, EXACT, Tokenizer
from data.tokenizers.sentencepiece import TOKENIZER_MODEL, SentencePieceTokenizer
from data.tokenizers.tokenizer_json import TOKENIZER_JSON, JsonTokenizer
from seedbed.errors import DataError

# A large vocabulary takes a third of a second to load, and a build asks for it in every stage. Tokenizers do
# not change, so one serves all who ask for the same content.
MAX_LOADED = 4
_LOADED: dict[tuple[bytes, str, str], Tokenizer] = {}

_GIVE = "give the path of a tokenizer.json or of a SentencePiece .model"


def find_tokenizer(folder: str | Path) -> Path:
    """The tokenizer's file in a dataset, a checkpoint, a model folder or a run, of which all steps have the
    same; DataError when there is none."""
    steps = [step for step in Path(folder).glob("checkpoints/step-*") if step.suffix == ""]
    for place in (Path(folder), *steps):
        for name in (TOKENIZER_JSON, TOKENIZER_MODEL):
            if (path := place / name).is_file():
                return path
    raise DataError(f"{folder} has neither {TOKENIZER_JSON} nor {TOKENIZER_MODEL}", _GIVE)


def load_tokenizer(path: str | Path, encoder: str = AUTO, content: bytes | None = None) -> Tokenizer:
    """The tokenizer of a file, or of a folder that holds one.

    `encoder` is how `encode_flat` works: "auto" (the fastest there is, checked against the exact one) or
    "exact" (the library that defines the ids). With `content` the file is not read again, and `path` only
    names it. DataError when the file is missing, damaged or of another kind.
    """
    if encoder not in (AUTO, EXACT):
        raise ValueError(f"encoder is {AUTO!r} or {EXACT!r}, not {encoder!r}")
    if content is None and Path(path).is_dir():
        path = find_tokenizer(path)
    origin, suffix = str(path), Path(path).suffix
    try:
        content = Path(path).read_bytes() if content is None else content
        key = (hashlib.sha256(content).digest(), suffix, encoder)
        if key not in _LOADED:
            _LOADED[key] = _make(content, origin, suffix, encoder)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the tokenizer {origin}: {error}", _GIVE) from error
    while len(_LOADED) > MAX_LOADED:
        _LOADED.pop(next(iter(_LOADED)))
    return _LOADED[key]


def _make(content: bytes, origin: str, suffix: str, encoder: str) -> Tokenizer:
    if suffix == ".model":
        return SentencePieceTokenizer(content, origin, encoder)
    if suffix == ".json":
        return JsonTokenizer(content.decode(), origin, encoder)
    raise DataError(f"{origin} is neither a .json nor a .model file", _GIVE)
