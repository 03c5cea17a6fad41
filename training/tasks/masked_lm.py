"""Predicting hidden pieces, and whether two texts belong together, with an encoder."""

import torch

from data.batches import Stream
from data.bert import BertBatch, BertStream, Pairs
from data.bert_masking import Vocabulary
from data.config import OrderConfig
from data.split import Split
from models.bert.config import EncoderConfig
from models.families import AnyModelConfig
from seedbed.errors import ConfigError
from training.config import Config
from training.objectives import Objective
from training.objectives.masked_lm import MaskedBatch, MaskedLM
from training.tasks.base import Datasets, Task
from training.tasks.vocabulary import first, with_padding, with_vocabulary


class MaskedLMTask(Task):
    """Stretches of documents, or pairs of them, with pieces to predict."""

    settings = ("label_smoothing", "z_loss", "pairs", "whole_word")

    def __init__(self, config: Config, datasets: Datasets) -> None:
        assert isinstance(config.model, EncoderConfig)
        self.config = config
        self._words = Vocabulary.of(first(datasets).tokenizer())
        self._pairs = _pairs(config, config.model)

    @classmethod
    def filled_in(cls, config: Config, datasets: Datasets) -> AnyModelConfig:
        assert isinstance(config.model, EncoderConfig)
        _pairs(config, config.model)
        words = Vocabulary.of(first(datasets).tokenizer())
        return with_vocabulary(with_padding(config.model, words), datasets)

    def objective(self, device: torch.device) -> Objective:
        return MaskedLM(self.config.objective.label_smoothing, self.config.objective.z_loss)

    def stream(self, split: Split, order: OrderConfig) -> Stream[BertBatch]:
        config = self.config
        return BertStream(
            split,
            self._words,
            config.model.context,
            config.run.seed,
            whole_word=config.objective.whole_word,
            pairs=self._pairs,
        )

    def tensors(self, batch: BertBatch) -> MaskedBatch:
        return MaskedBatch(
            torch.from_numpy(batch.tokens),
            torch.from_numpy(batch.segments).long(),
            torch.from_numpy(batch.valid),
            torch.from_numpy(batch.labels),
            torch.from_numpy(batch.weights),
            torch.from_numpy(batch.next_sentence),
            torch.from_numpy(batch.pair_weights),
        )


def _pairs(config: Config, model: EncoderConfig) -> Pairs:
    """How texts are paired: as asked, or as the family was published with."""
    judges = model.head == "pretraining"
    pairs = config.objective.pairs
    if pairs == "auto":
        judged: Pairs = "sentence_order" if model.family == "albert" else "next_sentence"
        pairs = judged if judges else "none"
    if judges == (pairs == "none"):
        raise ConfigError(
            f'objective.pairs = "{pairs}" does not go with model.head = "{model.head}"',
            'the head "pretraining" judges pairs, "masked_lm" has none',
        )
    if judges and model.num_segments == 1:
        raise ConfigError(
            "pairs of texts need model.num_segments = 2 (or 0, to tell them apart by [SEP] alone), not 1",
            'set it, or set model.head = "masked_lm"',
        )
    return pairs
