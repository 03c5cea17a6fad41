"""Rewards of token sequences, by one reward model or by several."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.bert.config import EncoderConfig
from models.heads import RewardModel
from seedbed.errors import UsageError
from training.checkpoint.models import LoadedModel, load_model
from training.rewards.ensembles import combine

TOKENS_AT_ONCE = 16_384


def is_reward_model(loaded: LoadedModel) -> bool:
    """Whether a checkpoint gives one number for a sequence."""
    model = loaded.config.model
    return isinstance(loaded.model, RewardModel) or (
        isinstance(model, EncoderConfig) and model.head == "reward"
    )


class RewardScorer:
    """Reward models of one tokenizer, put together by `how`; see `ensembles`."""

    def __init__(
        self,
        checkpoints: Sequence[Path | LoadedModel],
        *,
        how: str = "mean",
        penalty: float = 0.5,
        device: str = "cpu",
    ) -> None:
        """UsageError when one is no reward model, or was trained with another tokenizer."""
        self.members = [one if isinstance(one, LoadedModel) else load_model(one) for one in checkpoints]
        self.how, self.penalty, self.device = how, penalty, device
        if not self.members:
            raise UsageError("no reward model is given", "name one run or more")
        combine(np.zeros((1, 1)), how, penalty)
        for member in self.members:
            if not is_reward_model(member):
                raise UsageError(
                    f"{member.path} is no reward model",
                    'give a run that was trained with model.head = "reward"',
                )
            if member.tokenizer_path.read_bytes() != self.members[0].tokenizer_path.read_bytes():
                raise UsageError(
                    f"{member.path} and {self.members[0].path} have different tokenizers",
                    "give members that were trained on data of one tokenizer",
                )
            member.model.to(device).eval()

    @property
    def context(self) -> int:
        return min(member.config.model.context for member in self.members)

    def score(self, sequences: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        """[N] one reward of each sequence; what is beyond the context is left out."""
        return self.together(self.by_member(sequences))

    def together(self, rewards_MN: NDArray[np.float64]) -> NDArray[np.float64]:
        """[M, N] -> [N]: what members gave, put together."""
        return combine(rewards_MN, self.how, self.penalty)

    @torch.no_grad()
    def by_member(self, sequences: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        """[M, N]"""
        rewards_MN = np.zeros((len(self.members), len(sequences)))
        # Of like lengths together, so that little is padded.
        lengths = np.array([min(len(sequence), self.context) for sequence in sequences], dtype=np.int64)
        order = np.argsort(lengths, kind="stable")
        first = 0
        while first < len(order):
            count = max(1, TOKENS_AT_ONCE // max(1, int(lengths[order[min(first + 64, len(order) - 1)]])))
            chosen = order[first : first + min(count, 64)]
            longest = int(lengths[chosen].max())
            tokens = np.zeros((len(chosen), longest), dtype=np.int64)
            for row, number in enumerate(chosen.tolist()):
                tokens[row, : lengths[number]] = sequences[number][: lengths[number]]
            tokens_NT = torch.from_numpy(tokens).to(self.device)
            valid_NT = torch.arange(longest) < torch.from_numpy(lengths[chosen])[:, None]
            for number, member in enumerate(self.members):
                found = member.model(tokens_NT, valid_BT=valid_NT.to(self.device))
                rewards_MN[number, chosen] = found.double().cpu().numpy()
            first += len(chosen)
        return rewards_MN
