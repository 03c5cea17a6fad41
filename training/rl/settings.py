"""The table `[rl]`: how a policy is asked, what its answers are worth, and what is learned from that.

An *iteration* asks the policy `prompts` prompts, `answers` times each, and learns from all of these answers
`epochs` times; an optimizer step learns from as many as a batch has samples. Does not import torch.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from training.sections import PLACEMENT, SCHEDULE, Section

BUILT_IN = ("accuracy", "format", "parses", "python", "tests")
"""Rewards that need no file: see `RlConfig.rewards`."""
MODEL = "model:"
"""What a reward begins with that is a reward model's."""
JUDGE = "judge:"
"""And with that is a language model's, behind an endpoint."""


@dataclass(frozen=True)
class Algorithm:
    """One of the family, by what it is made of; see `advantages` and `losses`."""

    advantage: Literal["gae", "to_go", "leave_one_out", "group_relative", "centred"]
    loss: Literal["reinforce", "ppo", "gspo", "cispo"]
    mean: Literal["tokens", "answers", "constant"]
    kl_in: Literal["reward", "loss"]
    """Where the divergence from the reference is paid: by each token's reward, or in the loss."""
    source: str

    @property
    def has_critic(self) -> bool:
        return self.advantage == "gae"

    @property
    def compares(self) -> bool:
        """Answers to one prompt with each other."""
        return self.advantage in ("leave_one_out", "group_relative", "centred")


ALGORITHMS = {
    "ppo": Algorithm("gae", "ppo", "tokens", "reward", "Schulman et al. 2017; Ouyang et al. 2022"),
    "reinforce": Algorithm("to_go", "reinforce", "tokens", "reward", "Williams 1992; Sutton et al. 2000"),
    "reinforce_pp": Algorithm("to_go", "ppo", "tokens", "reward", "Hu 2025"),
    "rloo": Algorithm("leave_one_out", "reinforce", "constant", "reward", "Ahmadian et al. 2024"),
    "grpo": Algorithm("group_relative", "ppo", "answers", "loss", "Shao et al. 2024"),
    "dr_grpo": Algorithm("centred", "ppo", "constant", "loss", "Liu et al. 2025"),
    "dapo": Algorithm("group_relative", "ppo", "tokens", "loss", "Yu et al. 2025"),
    "gspo": Algorithm("group_relative", "gspo", "answers", "loss", "Zheng et al. 2025"),
    "cispo": Algorithm("group_relative", "cispo", "tokens", "loss", "MiniMax 2025"),
}
"""`objective.name` -> what it is. Their usual settings are their papers', not defaults: dapo's are
rl.clip_high = 0.28, rl.kl = 0, rl.refills = 4, for instance."""


class RlConfig(Section):
    """Reinforcement learning, for an `objective.name` of that family."""

    prompts: int = Field(16, ge=1)
    """Prompts of an iteration, in the order of `run.seed`."""
    answers: int = Field(4, ge=1)
    """Answers to each; methods that compare them need two."""
    max_new_tokens: int = Field(64, ge=1)
    """Where an answer is cut that has not ended by itself, if the context has room for as much."""
    temperature: float = Field(1.0, gt=0)
    """That answers are sampled at, and that their probabilities are of."""
    epochs: int = Field(1, ge=1)
    """How often the answers of an iteration are learned from."""
    rewards: tuple[str, ...] = Field((), strict=False)
    """What an answer is worth: the sum of "accuracy" (the dataset's response, as text or as the number it
    ends with), "format" (<think> and <answer>), "parses" (as Python), "python" (the checker of functions, 0
    to 4), "tests" (the share of the asserts in the dataset's response that pass, each in a sandbox),
    "model:RUN" (a reward model; several are an ensemble), "judge:FILE.toml" (a language model that compares
    with the dataset's response; the file has its url and model), or "FILE.py:function" and
    "package.module:function" (prompts, answers, rows -> numbers, in a process of its own)."""
    weights: tuple[float, ...] = Field((), strict=False)
    """What each of `rewards` is multiplied by; none: all by 1."""
    gold: tuple[str, ...] = Field((), strict=False, json_schema_extra=PLACEMENT)
    """Rewards that are measured of every answer and not learned from: whether the others can be believed."""
    over_optimised: Literal["tell", "stop", "best"] = Field("tell", json_schema_extra=SCHEDULE)
    """What follows when gold falls while the reward rises: an event; the run ends, too; or it ends and goes
    back to the step of the best gold, each step with a new best being saved."""
    combine: Literal["mean", "worst", "penalised"] = "mean"
    """How several reward models judge together."""
    reward_timeout_s: float = Field(10.0, gt=0, json_schema_extra=PLACEMENT)
    """For a reward function, for each answer, and for each test in a sandbox."""
    retries: int = Field(1, ge=0)
    """How often a reward is asked for again that could not be found out; then the answer is left out."""
    max_failures: float = Field(0.5, ge=0, le=1)
    """The share of answers of an iteration without a reward above which the run ends."""
    missing_end_penalty: float = Field(0.0, ge=0)
    """Taken from the reward of an answer that was cut."""
    clip_reward: float = Field(0.0, ge=0)
    """Largest absolute reward, after scaling; 0 is none."""
    scale_rewards: bool = False
    """Rewards are divided by the deviation of all that came before, and theirs."""
    whiten_advantages: bool = True
    """For ppo and reinforce_pp: advantages of an iteration have mean 0 and variance 1 over all tokens."""
    baseline: bool = True
    """For reinforce: the mean return of the iteration is taken from every token's."""
    kl: float = Field(0.05, ge=0)
    """Coefficient of the divergence from the reference; where kl_target is given, the first."""
    kl_estimator: Literal["auto", "k1", "k2", "k3"] = "auto"
    """Of the divergence of a token; auto is k1 in rewards and k3 in a loss, where k1 has no gradient."""
    kl_target: float = Field(0.0, ge=0)
    """Nats that an answer is to be from the reference, summed over its tokens: the coefficient follows
    (Ziegler et al. 2019). 0: it is fixed."""
    max_kl: float = Field(50.0, ge=0, json_schema_extra=PLACEMENT)
    """Nats from the reference, for an answer on average, beyond which the run ends; 0 is no bound."""
    kl_horizon: int = Field(10_000, ge=1)
    """Answers in which it follows."""
    reference: str = Field("", json_schema_extra=PLACEMENT)
    """The run or checkpoint to stay near to; empty: that of --init-from. It is identified by its hash."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount of a token."""
    gae_lambda: float = Field(0.95, ge=0, le=1)
    """For ppo."""
    clip_low: float = Field(0.2, gt=0, lt=1)
    """The ratio of new to old probability counts from 1 - clip_low..."""
    clip_high: float = Field(0.2, gt=0)
    """... to 1 + clip_high."""
    dual_clip: float = Field(0.0, ge=0)
    """Bound of the loss of a bad answer, in advantages, above 1; 0 is none."""
    entropy: float = Field(0.0, ge=0)
    """Coefficient of the policy's entropy, which is added to what is maximised."""
    stop_kl: float = Field(0.0, ge=0)
    """Nats a token from the policy that wrote the answers, on average over a step, beyond which the rest of
    the iteration is passed over. 0: never."""
    critic: str = Field("", json_schema_extra=PLACEMENT)
    """For ppo: the reward model that the critic begins as; empty: the policy with a new head. It is
    identified by its hash."""
    critic_lr: float = Field(0.0, ge=0)
    """Its peak learning rate; 0 is the policy's."""
    critic_warmup: int = Field(0, ge=0)
    """Iterations in which it learns alone."""
    value_clip: float = Field(0.2, ge=0)
    """How far a value may move before it stops counting; 0 is no clipping."""
    drop_without_spread: bool = False
    """For methods that compare: prompts whose answers are all worth the same are left out."""
    refills: int = Field(0, ge=0)
    """How often more prompts are asked in place of those left out."""
    ptx: float = Field(0.0, ge=0)
    """PPO-ptx: coefficient of the loss of text, of which a window is learned beside each answer, so that what
    was pretrained is not forgotten (Ouyang et al. 2022)."""
    ptx_data: str = Field("", json_schema_extra=PLACEMENT)
    """That text: a dataset, or a run of which it is the data. It is identified by its hash."""
    staleness: int = Field(0, ge=0, le=8)
    """Iterations that answers are older than the weights that learn from them: above 0, those of the next are
    written while this one is learned from."""
    importance: float = Field(2.0, ge=0)
    """Largest weight of a token that the generator, by its arithmetic or its age, made less likely than the
    trainer; 0: all weigh 1."""
    critic_workers: int = Field(0, ge=0, le=1_000_000, json_schema_extra=PLACEMENT)
    """For ppo: workers beside the ranks that hold the critic, under the same engine, and learn while the
    policy does; 0: the ranks hold it."""
    scoring_workers: int = Field(0, ge=0, le=1024, json_schema_extra=PLACEMENT)
    """Workers beside the ranks that hold the reference and whatever rewards come from, on machines of their
    own where a cluster has them; 0: every rank holds them."""
    keep_rollouts: int = Field(8, ge=0, json_schema_extra=PLACEMENT)
    """Files of answers that stay in the run directory, one an iteration."""

    @model_validator(mode="after")
    def _consistent(self) -> "RlConfig":
        if self.weights and len(self.weights) != len(self.rewards):
            raise ValueError(f"rl.weights has {len(self.weights)} for {len(self.rewards)} rl.rewards")
        if 0 < self.dual_clip <= 1:
            raise ValueError(f"rl.dual_clip = {self.dual_clip} is not above 1; 0 is without")
        for reward in (*self.rewards, *self.gold):
            if reward not in BUILT_IN and ":" not in reward:
                raise ValueError(
                    f'rl.rewards: "{reward}" is none; there are {", ".join(BUILT_IN)}, "model:RUN", '
                    '"judge:FILE.toml" and "FILE.py:function"'
                )
        if self.over_optimised != "tell" and not self.gold:
            raise ValueError(
                f'rl.over_optimised = "{self.over_optimised}" needs rl.gold: without it nobody knows whether '
                "the reward is"
            )
        pairs = zip(self.rewards, self.weights, strict=False)
        if len({weight for reward, weight in pairs if reward.startswith(MODEL)}) > 1:
            raise ValueError("rl.weights: reward models are one ensemble and have one weight")
        if self.kl_target and not self.kl:
            raise ValueError("rl.kl_target needs an rl.kl above 0 to begin with: it is multiplied")
        if bool(self.ptx) != bool(self.ptx_data):
            raise ValueError("rl.ptx and rl.ptx_data go together: a coefficient, and a dataset or a run")
        if self.refills and not self.drop_without_spread:
            raise ValueError("rl.refills does nothing without rl.drop_without_spread = true; leave it out")
        return self

    @property
    def per_iteration(self) -> int:
        """Answers."""
        return self.prompts * self.answers
