"""What answers are worth, as `rl.rewards` says: the sum over where rewards come from."""

from collections.abc import Sequence
from pathlib import Path

from training.engines import Group
from training.rl.elsewhere import Elsewhere
from training.rl.outcomes import Reward, together
from training.rl.settings import MODEL, RlConfig
from training.rl.sources import Judged, part_of, sources
from training.rl.workers import BLOCK, Worker, shared_out


class Judge(Worker):
    """All rewards of a run; `close` ends the processes of functions."""

    def __init__(
        self, settings: RlConfig, group: Group, folder: Path, elsewhere: Elsewhere | None = None
    ) -> None:
        """`folder` is where verdicts of language models stay."""
        super().__init__(group, BLOCK, elsewhere)
        self.settings = settings
        self._sources = [] if elsewhere else sources(settings, str(group.device), folder, group.rank)
        weights = settings.weights or (1.0,) * len(settings.rewards)
        self._weights = {
            part_of(name): weight for name, weight in zip(settings.rewards, weights, strict=True)
        }

    def close(self) -> None:
        for source in self._sources:
            source.close()

    def rewards(self, judged: Sequence[Judged]) -> list[Reward]:
        """One for each answer; what could not be found out is asked for again, up to `rl.retries` times."""
        found = self._asked(judged)
        for _ in range(self.settings.retries):
            again = [index for index, reward in enumerate(found) if reward.failure]
            if not again:
                break
            for index, reward in zip(again, self._asked([judged[index] for index in again]), strict=True):
                found[index] = reward
        return found

    def _asked(self, judged: Sequence[Judged]) -> list[Reward]:
        # Of a model, numbers depend on the block that they are computed in; nothing else does.
        has_models = any(name.startswith(MODEL) for name in self.settings.rewards)
        workers = len(self.elsewhere.ranks) if self.elsewhere else self.group.num_ranks
        self.block = BLOCK if has_models else -(-len(judged) // workers)
        return self._of_block(judged)

    @shared_out
    def _of_block(self, judged: Sequence[Judged]) -> list[Reward]:
        columns = [source.rewards(judged) for source in self._sources]
        return [together(rewards, self._weights) for rewards in zip(*columns, strict=True)]
