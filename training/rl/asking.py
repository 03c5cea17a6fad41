"""Prompts asked, and answers judged and sorted: what an iteration learns from, and what it leaves out."""

from collections.abc import Callable

from models.generation import Completion, Request, SamplingOptions
from seedbed.errors import TrainingError
from seedbed.randomness import seed64
from training.config import Config
from training.recorder import Recorder
from training.rl.ahead import Ahead
from training.rl.invariants import check_rollouts
from training.rl.judging import Judge
from training.rl.outcomes import failures
from training.rl.rollouts import Rollout
from training.rl.settings import ALGORITHMS
from training.rl.sources import Judged
from training.rl.weights import Clock
from training.rl.workers import Policy
from training.tasks.rollouts import RolloutTask


class Asking:
    """The first half of an iteration. Prompts, and what is drawn, are a function of seed and position."""

    def __init__(
        self, config: Config, task: RolloutTask, policy: Policy, judge: Judge, recorder: Recorder
    ) -> None:
        self.config, self.settings = config, config.rl
        self.algorithm = ALGORITHMS[config.objective.name]
        self.task, self.policy, self.judge, self.recorder = task, policy, judge, recorder
        self.ahead = Ahead(policy)

    def rollouts(self, iteration: int, clock: Clock, step: int) -> tuple[list[Rollout], list[Rollout]]:
        """(answers to learn from, answers without a reward or without a difference to others)."""
        kept: list[Rollout] = []
        left_out: list[Rollout] = []
        asked, room = 0, self.settings.per_iteration
        for _ in range(1 + self.settings.refills):
            wanted = self.settings.prompts - len(kept) // self.settings.answers
            if wanted <= 0:
                break
            ahead = self.ahead.take(iteration) if not asked else None
            rollouts = ahead or self._answered(iteration, asked, wanted)
            asked += wanted
            clock.begin("reward")
            self.recorder.beat(step, "judging")
            judged = self._judged(iteration, rollouts)
            for first in range(0, len(judged), self.settings.answers):
                group = judged[first : first + self.settings.answers]
                good, bad = self._sorted_out(group)
                if len(kept) + len(good) > room:
                    good, bad = [], group
                kept += good
                left_out += bad
            clock.begin("rollout")
        for later in range(iteration + 1, iteration + 1 + self.settings.staleness):
            self.ahead.begin(later, *self._asked(later, 0, self.settings.prompts))
        return kept, left_out

    def _answered(self, iteration: int, first: int, num_prompts: int) -> list[Rollout]:
        """Answers to prompts `first`, ... of an iteration, those to one side by side."""
        requests, finished = self._asked(iteration, first, num_prompts)
        return finished(self.policy.generate(requests))

    def _asked(
        self, iteration: int, first: int, num_prompts: int
    ) -> tuple[list[Request], Callable[[list[Completion]], list[Rollout]]]:
        """The requests for them, and what makes rollouts of the completions."""
        begin = iteration * self.settings.prompts
        numbers = [
            number
            for number in range(begin + first, begin + first + num_prompts)
            for _ in range(self.settings.answers)
        ]
        requests = [
            self._request(iteration, number, place % self.settings.answers)
            for place, number in enumerate(numbers)
        ]
        policy = self.policy.hash

        def finished(completions: list[Completion]) -> list[Rollout]:
            rollouts = [
                Rollout.of(number, request.prompt, completion, policy)
                for number, request, completion in zip(numbers, requests, completions, strict=True)
            ]
            check_rollouts(rollouts, self.config.model.context, self.config.model.vocab_size)
            return rollouts

        return requests, finished

    def _request(self, iteration: int, number: int, answer: int) -> Request:
        return Request(
            self.task.prompt(self._sequence(iteration, number)),
            self.settings.max_new_tokens,
            SamplingOptions(temperature=self.settings.temperature),
            seed64(self.config.run.seed, "rollout", iteration, number, answer),
            self.task.end_ids,
        )

    def _sequence(self, iteration: int, number: int) -> int:
        """The example of a prompt: in the order of the data, or, beyond an iteration's own, by hash."""
        beyond = number - (iteration + 1) * self.settings.prompts
        return self.task.sequence(number) if beyond < 0 else self.task.other(iteration, beyond)

    def with_examples(self, iteration: int, rollouts: list[Rollout]) -> list[Judged]:
        """Answers with the texts of what they answer."""
        examples: dict[int, tuple[str, str]] = {}
        for one in rollouts:
            if one.number not in examples:
                sequence = self._sequence(iteration, one.number)
                prompt = self.task.tokenizer.decode(self.task.prompt(sequence))
                examples[one.number] = prompt, self.task.response_text(sequence)
        return [Judged(one, self.task.text(one), *examples[one.number]) for one in rollouts]

    def _judged(self, iteration: int, rollouts: list[Rollout]) -> list[Rollout]:
        asked = self.with_examples(iteration, rollouts)
        rewards = self.judge.rewards(asked)
        missing = sum(reward.failure is not None for reward in rewards)
        if missing > self.settings.max_failures * len(rewards):
            first = next(reward for reward in rewards if reward.failure)
            counts = ", ".join(f"{count} {name}" for name, count in failures(rewards).items())
            raise TrainingError(
                f"{missing} of {len(rewards)} answers have no reward ({counts}), such as: {first.detail}",
                "mend the reward, or allow for more with rl.max_failures",
            )
        return [one.with_reward(reward) for one, reward in zip(rollouts, rewards, strict=True)]

    def _sorted_out(self, group: list[Rollout]) -> tuple[list[Rollout], list[Rollout]]:
        """(answers to one prompt to learn from, the others)."""
        good = [one for one in group if one.reward and not one.reward.failure]
        bad = [one for one in group if one not in good]
        penalty = self.settings.missing_end_penalty
        totals = {one.reward.total - penalty * (not one.ended) for one in good if one.reward}
        is_alone = self.algorithm.compares and len(good) < 2
        is_alike = self.algorithm.compares and self.settings.drop_without_spread and len(totals) < 2
        return ([], group) if is_alone or is_alike else (good, bad)
