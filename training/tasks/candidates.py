"""Learning what is preferred: rewards from comparisons, and direct methods without a reward model."""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import torch

from data.batches import Stream
from data.bert_masking import Vocabulary
from data.config import OrderConfig
from data.examples.groups import GroupBatch, GroupStream
from data.examples.table import ExampleTable, require_format
from data.shards import Dataset
from data.split import Split
from models.bert.config import EncoderConfig
from models.families import AnyModelConfig
from seedbed.errors import ConfigError
from training.config import Config
from training.objectives import Objective
from training.objectives.preference import (
    UNPAIRED,
    WITH_REFERENCE,
    GroupTensors,
    Preference,
    PreferenceSettings,
)
from training.objectives.reward import RewardModeling
from training.reference import group_tensors, reference_log_probs
from training.tasks.base import Datasets, Task
from training.tasks.vocabulary import first, with_padding, with_vocabulary


class CandidateTask(Task):
    """Samples of candidates for one prompt."""

    formats: ClassVar[tuple[str, ...]]
    """The `data.format`s that it learns from."""

    def __init__(self, config: Config, datasets: Datasets) -> None:
        self.config, self.datasets, self.name = config, datasets, config.objective.name
        for dataset in datasets.values():
            require_format(dataset, self.formats, self.name)
        self._streams: dict[tuple[str, str], GroupStream] = {}

    @classmethod
    def filled_in(cls, config: Config, datasets: Datasets) -> AnyModelConfig:
        return with_vocabulary(config.model, datasets)

    def stream(self, split: Split, order: OrderConfig) -> Stream[GroupBatch]:
        dataset = next(
            d for d in self.datasets.values() if split.name in d.splits and d.split(split.name) is split
        )
        key = (dataset.digest, split.name)
        if key not in self._streams:
            self._streams[key] = self._made(dataset, split)
        return self._streams[key]

    @abstractmethod
    def _made(self, dataset: Dataset, split: Split) -> GroupStream:
        """The samples of a split."""

    def tensors(self, batch: GroupBatch) -> GroupTensors:
        return group_tensors(batch)

    def notices(self) -> list[str]:
        told = []
        for name, dataset in self.datasets.items():
            stream = self.stream(dataset.split("train"), self.config.order)
            assert isinstance(stream, GroupStream)
            left_out = stream.described()
            told.append(
                f"{name}: {stream.num_samples:,} samples of up to {stream.num_candidates} candidates"
                + (f"; {left_out}" if left_out else "")
            )
        return told


class RewardTask(CandidateTask):
    """Comparisons of two answers, or of several."""

    settings = ("too_long", "centering", "use_margin", "learn_temperature")
    formats = ("preference", "ranking")

    def __init__(self, config: Config, datasets: Datasets) -> None:
        super().__init__(config, datasets)
        if isinstance(config.model, EncoderConfig):
            if config.objective.learn_temperature:
                raise ConfigError(
                    f"objective.learn_temperature has no place in the head of a {config.model.family}",
                    "leave it out: `seedbed eval --tasks preferences` fits a temperature afterwards",
                )
            self._check_beginning(datasets)

    def _check_beginning(self, datasets: Datasets) -> None:
        """An encoder's reward is read from its first token, which has to be the one that it was trained
        with."""
        cls_id = Vocabulary.of(first(datasets).tokenizer()).cls_id
        for dataset in datasets.values():
            table = ExampleTable.of(dataset, "train")
            if table.num_sequences and int(table.tokens(0, 1)[0]) != cls_id:
                raise ConfigError(
                    f"texts of {dataset.location} do not begin with [CLS], which the reward of a "
                    f"{self.config.model.family} is read from",
                    'build it with data.template = "plain"',
                )

    @classmethod
    def filled_in(cls, config: Config, datasets: Datasets) -> AnyModelConfig:
        model = config.model
        if isinstance(model, EncoderConfig):
            model = with_padding(model, Vocabulary.of(first(datasets).tokenizer()))
        return with_vocabulary(model, datasets)

    def objective(self, device: torch.device) -> Objective:
        settings = self.config.objective
        return RewardModeling(settings.centering, settings.use_margin, settings.learn_temperature)

    def _made(self, dataset: Dataset, split: Split) -> GroupStream:
        table = ExampleTable.of(dataset, split.name)
        context, seed = self.config.model.context, self.config.run.seed
        return GroupStream(table, context, seed, too_long=self.config.objective.too_long)


class PreferenceTask(CandidateTask):
    """Pairs of answers; for a method that judges them one by one, single answers."""

    settings: ClassVar[tuple[str, ...]] = ("too_long", "beta", "reference", "label_smoothing")
    formats: ClassVar[tuple[str, ...]] = ("preference",)

    def __init__(self, config: Config, datasets: Datasets) -> None:
        super().__init__(config, datasets)
        if self.name in WITH_REFERENCE and not config.objective.reference:
            raise ConfigError(
                f'objective.name = "{self.name}" stays near to a reference, and there is none',
                "begin with the weights to stay near to, --init-from RUN, or set objective.reference",
            )

    def objective(self, device: torch.device) -> Objective:
        settings = self.config.objective
        return Preference(
            self.name,
            PreferenceSettings(
                settings.beta,
                settings.label_smoothing,
                settings.reward_margin,
                settings.desirable_weight,
                settings.undesirable_weight,
            ),
        )

    def _made(self, dataset: Dataset, split: Split) -> GroupStream:
        settings, context = self.config.objective, self.config.model.context
        stream = GroupStream(
            ExampleTable.of(dataset, split.name),
            context,
            self.config.run.seed,
            too_long=settings.too_long,
            mismatched=self.name in UNPAIRED,
        )
        if self.name in WITH_REFERENCE:
            engine = self.config.engine
            device = torch.device("cuda" if engine.device == "cuda" else "cpu")
            about = {"dataset": dataset.digest, "split": split.name}
            stream.reference = reference_log_probs(
                Path(settings.reference), stream, about, device, engine.precision
            )
        return stream


class IpoTask(PreferenceTask):
    """Azar et al. 2023."""

    settings = ("too_long", "beta", "reference")


class KtoTask(PreferenceTask):
    """Ethayarajh et al. 2024."""

    settings = ("too_long", "beta", "reference", "desirable_weight", "undesirable_weight")
    formats = ("preference", "feedback")


class OrpoTask(PreferenceTask):
    """Hong et al. 2024."""

    settings = ("too_long", "beta")


class SimpoTask(PreferenceTask):
    """Meng et al. 2024."""

    settings = ("too_long", "beta", "reward_margin")
