"""Reinforcement learning: samples are the policy's own answers to the prompts of a dataset of examples."""

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from data.config import OrderConfig
from data.examples.table import ExampleTable, is_examples
from data.order import EpochOrder
from data.split import Split
from models.families import AnyModelConfig
from seedbed.errors import ConfigError, TooLittleData
from seedbed.randomness import seed64
from training.batch_layout import batch_layout
from training.config import Config
from training.objectives import Objective
from training.rl.buffer import Learned, LearnedBatch, RolloutStream, tensors
from training.rl.objectives import RolloutObjective, policy_objective
from training.rl.pretraining import LearnedWithText, PtxObjective, WithText, text_stream, with_text
from training.rl.rollouts import Rollout
from training.rl.settings import ALGORITHMS, RlConfig
from training.tasks.base import Datasets, Task
from training.tasks.vocabulary import first, with_vocabulary


class RolloutTask(Task):
    """Prompts of one dataset of examples, whose responses are what rules compare with."""

    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Config, datasets: Datasets) -> None:
        self.config, self.algorithm = config, ALGORITHMS[config.objective.name]
        _check(config)
        if len(datasets) > 1 or not is_examples(first(datasets)):
            raise ConfigError(
                f'objective.name = "{config.objective.name}" answers the prompts of one dataset of examples, '
                f"and {first(datasets).location} " + ("has others" if len(datasets) > 1 else "holds none"),
                'give one that was built with data.format, such as "prompt-response"',
            )
        self.dataset = first(datasets)
        self.table = ExampleTable.of(self.dataset, "train")
        self.prompts = self._fitting()
        self._order = EpochOrder(len(self.prompts), config.run.seed)
        self.tokenizer = self.dataset.tokenizer()
        self.end_ids = self._end_ids()
        """Tokens that end an answer: that of texts, and what the template ends a turn with."""
        context, seed = config.model.context, config.run.seed
        text = text_stream(config.rl.ptx_data, context, seed) if config.rl.ptx else None
        self._stream = RolloutStream(config.rl, len(self.prompts), context, seed, text)

    def _fitting(self) -> NDArray[np.int64]:
        """The examples whose prompt leaves room for an answer."""
        begins = self.table.first_trained()[self.table.firsts[:-1]]
        room = self.config.model.context - self.config.rl.max_new_tokens
        fitting: NDArray[np.int64] = self.table.firsts[:-1][begins <= room]
        if not len(fitting):
            raise ConfigError(
                f"none of the {self.table.num_examples:,} prompts in {self.dataset.location} leaves room for "
                f"rl.max_new_tokens = {self.config.rl.max_new_tokens} in model.context = "
                f"{self.config.model.context}",
                "give other prompts, or lower rl.max_new_tokens",
            )
        return fitting

    def _end_ids(self) -> frozenset[int]:
        special = set(self.tokenizer.special_ids.values())
        last = {self.response(int(sequence))[-1] for sequence in self.prompts[:16]}
        return frozenset({self.tokenizer.end_of_text_id, *(last & special)})

    @classmethod
    def filled_in(cls, config: Config, datasets: Datasets) -> AnyModelConfig:
        return with_vocabulary(config.model, datasets)

    def objective(self, device: torch.device) -> Objective:
        policy = policy_objective(self.config.rl, self.algorithm)
        return PtxObjective(policy, self.config.rl.ptx) if self.config.rl.ptx else RolloutObjective(policy)

    def stream(self, split: Split, order: OrderConfig) -> RolloutStream:
        if split.name != "train":
            raise TooLittleData("a policy is not validated while it learns", "seedbed data judge asks it")
        return self._stream

    def tensors(self, batch: LearnedBatch) -> Learned | WithText:
        if isinstance(batch, LearnedWithText):
            return with_text(batch, policy_objective(self.config.rl, self.algorithm))
        return tensors(batch)

    def notices(self) -> list[str]:
        left_out = self.table.num_examples - len(self.prompts)
        told = f"{len(self.prompts):,} prompts" + (
            f"; {left_out:,} are left out, which leave no room for {self.config.rl.max_new_tokens} new tokens"
            if left_out
            else ""
        )
        rl = self.config.rl
        for num, role in ((rl.critic_workers, "critic"), (rl.scoring_workers, "reference and the rewards")):
            told += f"; {num} worker(s) beside the ranks hold the {role}" if num else ""
        return [told]

    def sequence(self, number: int) -> int:
        """The sequence in the table of prompt `number` of the endless, shuffled run of them."""
        return int(self.prompts[self._order.units(number, 1)[1][0]])

    def other(self, iteration: int, number: int) -> int:
        """The sequence of one more prompt for an iteration, by hash."""
        return int(
            self.prompts[seed64(self.config.run.seed, "refill", iteration, number) % len(self.prompts)]
        )

    def prompt(self, sequence: int) -> tuple[int, ...]:
        """Its tokens."""
        begin = max(1, int(self.table.spans_of(sequence)[0, 0]))
        return tuple(self.table.tokens(sequence, begin).tolist())

    def response(self, sequence: int) -> tuple[int, ...]:
        """The tokens of the response that the dataset has."""
        begin, end = self.table.spans_of(sequence)[0].tolist()
        return tuple(self.table.tokens(sequence)[max(1, begin) : end].tolist())

    def text(self, rollout: Rollout) -> str:
        """What was answered, without the token that ends it."""
        ended = rollout.ended and rollout.answer[-1] in self.end_ids
        return self.tokenizer.decode(list(rollout.answer[:-1] if ended else rollout.answer))

    def response_text(self, sequence: int) -> str:
        """Without the token that ends it."""
        return self.tokenizer.decode([id for id in self.response(sequence) if id not in self.end_ids])


def _check(config: Config) -> None:
    """Raises ConfigError for settings that cannot be."""
    rl, algorithm, name = config.rl, ALGORITHMS[config.objective.name], config.objective.name
    if not rl.rewards:
        raise ConfigError(f'objective.name = "{name}" needs rewards', 'such as rl.rewards = ["accuracy"]')
    if algorithm.compares and rl.answers < 2:
        raise ConfigError(f"{name} compares answers to one prompt", "set rl.answers to 2 or more")
    layout = batch_layout(config)
    if rl.critic_workers > layout.num_leaves:
        raise ConfigError(
            f"rl.critic_workers = {rl.critic_workers} is more than the {layout.num_leaves} micro-batch(es) "
            "of a step",
            f"use at most {layout.num_leaves}, or a smaller batch.micro_batch_size",
        )
    samples = layout.samples_per_step
    if rl.per_iteration % samples:
        raise ConfigError(
            f"an iteration has rl.prompts x rl.answers = {rl.per_iteration} answers, and a step {samples} "
            "(batch.tokens_per_step / model.context)",
            "make the first a multiple of the second",
        )
    dropouts = [
        field
        for field in ("dropout", "drop_path", "attention_dropout", "lora_dropout")
        if getattr(config.model, field, 0)
    ]
    if dropouts:
        raise ConfigError(
            f"model.{dropouts[0]} makes the policy that learns another than the one that answers",
            f"set model.{dropouts[0]} = 0",
        )
    if config.engine.precision == "fp16":
        raise ConfigError(f'objective.name = "{name}" is not for engine.precision = "fp16"', "take bf16")
    if rl.kl and not rl.reference:
        raise ConfigError(
            "rl.kl is paid for the distance from a reference, and there is none",
            "begin with --init-from, name rl.reference, or set rl.kl = 0",
        )
    for fields, reads in (
        (
            ("critic", "critic_lr", "critic_warmup", "critic_workers", "value_clip", "gae_lambda"),
            algorithm.has_critic,
        ),
        (("baseline",), algorithm.loss == "reinforce" and not algorithm.compares),
        (("drop_without_spread",), algorithm.compares),
    ):
        for field in fields:
            if not reads and getattr(rl, field) != RlConfig.model_fields[field].default:
                raise ConfigError(
                    f"rl.{field} = {getattr(rl, field)!r} does nothing for {name}", "leave it out"
                )
    if rl.kl_estimator == "k1" and algorithm.kl_in == "loss" and rl.kl:
        raise ConfigError("rl.kl_estimator = k1 has no gradient in a loss", "take k2 or k3, or leave it out")
