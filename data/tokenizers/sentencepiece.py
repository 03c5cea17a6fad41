"""SentencePiece unigram and BPE tokenizers of a .model file, run by `sentencepiece`.

SentencePiece spells a space "▁" (U+2581), so that a text with this character would come back with a
space. Here it goes through its three bytes instead, and a model that does not normalise and has byte
fallback gives every text back as it was.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.metadata import version
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.packages import package_missing
from data.tokenizers.base import AUTO, Tokenizer, end_of_text_of
from data.tokenizers.encoders import Encoder, Flat, flat
from data.tokenizers.gigatoken import from_sentencepiece
from data.tokenizers.sentencepiece_model import ModelSpec, read_spec
from seedbed.errors import DataError
from seedbed.files import digest_of

TOKENIZER_MODEL = "tokenizer.model"
SPACE = "▁"


class SentencePieceTokenizer(Tokenizer):
    """`model` is the content of a .model file, `origin` names it in errors."""

    file_name = TOKENIZER_MODEL

    def __init__(self, model: bytes, origin: str, encoder: str = AUTO) -> None:
        self._model = model
        self._encoder_choice = encoder
        self._spec, self._backend = _load(model, origin)
        self.kind = self._spec.kind
        self.vocab_size = self._backend.get_piece_size()
        ids = list(range(self.vocab_size))
        self._pieces: list[str] = self._backend.id_to_piece(ids)
        # Neither kind is ever looked for in text.
        special = np.array(self._backend.is_control(ids)) | np.array(self._backend.is_unknown(ids))
        self.special_ids = {self._pieces[id]: int(id) for id in np.flatnonzero(special)}
        end = self._backend.eos_id()
        self.end_of_text = self._pieces[end] if end >= 0 else end_of_text_of(self.special_ids, origin)
        self.fingerprint = self._fingerprint(ids)
        self.lossy_because = self._spec.lossy_because

    def __contains__(self, token: str) -> bool:
        return token in self._pieces

    def encode(self, text: str) -> list[int]:
        return self._ids(text).tolist()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        whole = [text for text in texts if not self._spells_space(text)]
        rows = iter(self._backend.encode(whole, num_threads=-1) if whole else [])
        return [self.encode(text) if self._spells_space(text) else next(rows) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        names = {id: name for name, id in self.special_ids.items()}
        runs = groupby((int(id) for id in ids), key=names.get)
        return "".join(
            self._backend.decode(list(run)) if name is None else name * len(list(run)) for name, run in runs
        )

    def byte_lengths(self) -> NDArray[np.int64]:
        lengths = np.array([len(piece.replace(SPACE, " ").encode()) for piece in self._pieces], np.int64)
        lengths[np.array(self._backend.is_byte(list(range(self.vocab_size))))] = 1
        lengths[list(self.special_ids.values())] = 0
        return lengths

    def to_bytes(self) -> bytes:
        return self._model

    def _exact_encoder(self) -> Encoder:
        return _Exact(self)

    def _fast_encoder(self, exact: Encoder) -> Encoder | None:
        if self.kind != "sentencepiece-bpe" or not self._spec.byte_fallback:
            return None
        # gigatoken would take these for what they spell.
        return from_sentencepiece(self._model, exact, (SPACE, *self.special_ids))

    def _spells_space(self, text: str) -> bool:
        return not self.lossy_because and SPACE in text

    def _ids(self, text: str) -> NDArray[np.int32]:
        if not self._spells_space(text):
            return self._backend.encode(text, out_type="numpy")
        first, *others = self._backend.encode(text.split(SPACE), out_type="numpy")
        return np.concatenate([first, *(part for other in others for part in (self._space_bytes, other))])

    @cached_property
    def _space_bytes(self) -> NDArray[np.int32]:
        pieces = [f"<0x{byte:02X}>" for byte in SPACE.encode()]
        return np.array(self._backend.piece_to_id(pieces), dtype=np.int32)

    def _fingerprint(self, ids: list[int]) -> str:
        types = np.stack(
            [getattr(self._backend, f"is_{name}")(ids) for name in ("unknown", "control", "unused", "byte")]
        )
        pieces = [self._pieces, self._backend.get_score(ids), types.astype(int).tolist()]
        return digest_of({"pieces": pieces} | self._spec.meaning())


class _Exact:
    """The library itself, on one thread."""

    def __init__(self, tokenizer: SentencePieceTokenizer) -> None:
        self.name = f"sentencepiece {version('sentencepiece')}"
        self._tokenizer = tokenizer

    def __call__(self, texts: Sequence[str]) -> Flat:
        return flat([self._tokenizer._ids(text).astype(np.uint32) for text in texts])


def _load(model: bytes, origin: str) -> tuple[ModelSpec, Any]:
    try:
        import sentencepiece
    except ImportError:
        raise package_missing("a SentencePiece tokenizer", "sentencepiece", "sentencepiece") from None
    try:
        spec = read_spec(model)
        return spec, sentencepiece.SentencePieceProcessor(model_proto=model)
    except (ValueError, RuntimeError) as error:
        raise DataError(
            f"{origin}: not a SentencePiece model ({error})", "give a .model file that `sentencepiece` wrote"
        ) from error
