"""How many rows the embedding of a model has: what its tokenizer asks for, and room beyond it."""

from data.bert_masking import Vocabulary
from data.shards import Dataset
from models.bert.config import EncoderConfig
from models.families import AnyModelConfig
from seedbed.errors import ConfigError
from training.tasks.base import Datasets

# Of span corruption, where the tokenizer has none of its own: as many as T5 was published with.
NUM_SENTINELS = 100


def first(datasets: Datasets) -> Dataset:
    """Any one of the datasets, which all have the same tokenizer."""
    return next(iter(datasets.values()))


def with_padding(model: EncoderConfig, words: Vocabulary) -> EncoderConfig:
    """`model` with the tokenizer's id of padding, from which RoBERTa counts positions."""
    return model.model_copy(update={"pad_id": words.pad_id})


def with_vocabulary(model: AnyModelConfig, datasets: Datasets, num_extra: int = 0) -> AnyModelConfig:
    """`model` with the vocabulary of the data, and `num_extra` tokens more, unless it says its own.

    ConfigError when its own is too small.
    """
    dataset = first(datasets)
    needed = dataset.vocab_size + num_extra
    if 0 < model.vocab_size < needed:
        more = f" and {num_extra} tokens of the objective" if num_extra else ""
        raise ConfigError(
            f"model.vocab_size = {model.vocab_size} is smaller than the {dataset.vocab_size} tokens of the "
            f"tokenizer in {dataset.location}{more}",
            f"set model.vocab_size to 0 (what is needed) or to at least {needed}",
        )
    return model.model_copy(update={"vocab_size": model.vocab_size or needed})
