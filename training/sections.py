"""The tables of a training configuration; `training.config` puts them together."""

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from models.families import is_hidden_matrix
from seedbed.settings import STRICT
from training.engine_traits import TRAITS, Traits

SCHEDULE: dict[str, Any] = {"kind": "schedule"}
PLACEMENT: dict[str, Any] = {"kind": "placement"}


class Section(BaseModel):
    """A table of the configuration file."""

    model_config = STRICT


class RunConfig(Section):
    """What is trained, and for how long."""

    name: str = Field("", json_schema_extra=PLACEMENT)
    """A name for tables and trackers; empty means the run directory's."""
    seed: int = Field(0, ge=0)
    """Initial weights, data order and dropout are functions of it."""
    steps: int = Field(1000, ge=1, le=10**12, json_schema_extra=SCHEDULE)
    """Optimizer steps in all."""
    pause_at: int = Field(0, ge=0, json_schema_extra=PLACEMENT)
    """A step at which the run stops with a checkpoint, as if it were asked to; resumed, it goes on as one
    that never stopped. 0: none."""
    max_restarts: int = Field(100, ge=0, json_schema_extra=PLACEMENT)
    """How often workers are started again in all; `restarts` has budgets by cause."""
    stop_grace_s: float = Field(300.0, gt=0, json_schema_extra=PLACEMENT)
    """Seconds that a stop waits for the last checkpoint before workers are killed."""


class BatchConfig(Section):
    """The one batch setting; accumulation and per-rank work follow from it for any number of ranks."""

    tokens_per_step: int = Field(8192, ge=1)
    """Tokens per optimizer step, over all ranks."""
    micro_batch_size: int = Field(8, ge=1)
    """Sequences in one forward pass of one rank."""


class OptimizerConfig(Section):
    """The update rule."""

    name: Literal[
        "adamw",
        "muon",
        "adam",
        "amsgrad",
        "adafactor",
        "lion",
        "lamb",
        "adabound",
        "sgd",
        "rmsprop",
        "adagrad",
        "adadelta",
        "rprop",
    ] = "adamw"
    """The published rules; AdamW is Loshchilov and Hutter 2019. muon orthogonalises the updates of matrices
    in blocks (Jordan et al. 2024) and leaves all else to AdamW, with AdamW's rate for both. lion, lamb and
    adabound need the extra `optimizers`."""
    lr: float = Field(3e-4, gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = Field((0.9, 0.95), strict=False)
    """Decay of the first and second moments; the second is that of rmsprop's and adadelta's mean too."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """For sgd, rmsprop and muon, where 0 stands for its usual 0.95."""
    nesterov: bool = False
    """For sgd: the gradient is looked up ahead of the momentum (Nesterov 1983)."""
    eps: float = Field(1e-8, gt=0)
    """Added to the root of the second moment."""
    eps_hat: bool = False
    """For adam and adamw: eps is added to the root before its bias is corrected, as TensorFlow 1 did and the
    published PPO runs on language models with it (Kingma and Ba 2015, end of section 2): in early steps the
    same number damps updates by 1 / sqrt(1 - beta_2^t) as much."""
    final_lr: float = Field(0.1, gt=0)
    """For adabound: the rate of plain gradient descent that it ends with, at the schedule's peak."""
    weight_decay: float = Field(0.1, ge=0)
    """On matrices only. Decoupled for adamw, muon, adafactor and lion; part of the update whose length lamb
    sets; added to the gradient by the others; rprop has none."""
    l1: float = Field(0.0, ge=0)
    """Coefficient of the sum of absolute weights of matrices, added to the loss."""
    l2: float = Field(0.0, ge=0)
    """Coefficient of half the sum of squared weights of matrices, added to the loss; with l1, elastic net."""
    clip_norm: float = Field(1.0, ge=0)
    """Largest gradient norm over all parameters; 0 turns clipping off."""
    clip_value: float = Field(0.0, ge=0)
    """Largest absolute value of a gradient's element, after the norm; 0 turns it off."""

    trained: str = Field("all", pattern=r"^(all|head|lora|last:[1-9][0-9]*)$")
    """Which parameters learn: "all"; "head": that of the model alone, with a last norm before it; "last:N":
    the last N blocks and what comes after them; "lora": the adapters of model.lora_rank, and a reward's head.
    The others keep their values and have no optimizer state."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Of an exponential moving average of the weights, kept beside them in fp32: 0.999 averages over about
    1,000 steps. Validation scores it too; export and generate take it with --ema. 0 keeps none."""

    def needs_whole(self, parameter: str, num_dims: int) -> bool:
        """Whether a parameter's update is a function of the whole tensor, not element by element."""
        return self.name in WHOLE and (self.name != "muon" or is_hidden_matrix(parameter, num_dims))

    @model_validator(mode="after")
    def _consistent(self) -> "OptimizerConfig":
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas = {list(self.betas)} must lie in [0, 1)")
        if self.momentum and self.name not in ("sgd", "rmsprop", "muon"):
            raise ValueError(
                f'optimizer.momentum does nothing for optimizer.name = "{self.name}"; leave it out'
            )
        if self.eps_hat and self.name not in ("adam", "adamw"):
            raise ValueError(
                f'optimizer.eps_hat does nothing for optimizer.name = "{self.name}"; leave it out'
            )
        if self.nesterov and not (self.name == "sgd" and self.momentum):
            raise ValueError(
                'optimizer.nesterov needs optimizer.name = "sgd" and an optimizer.momentum above 0'
            )
        return self


class ScheduleConfig(Section):
    """The learning rate as a function of the step."""

    name: Literal[
        "cosine",
        "wsd",
        "constant",
        "linear",
        "polynomial",
        "restarts",
        "step",
        "exponential",
        "power",
        "inverse_sqrt",
    ] = Field("cosine", json_schema_extra=SCHEDULE)
    """What follows the warm-up: a fall to min_ratio as a half cosine, at the end alone (wsd: warm-up, stable,
    linear decay), along a line or a polynomial, or as num_cycles half cosines; nothing (constant); or a decay
    that stops at min_ratio: num_drops drops by factor, exponentially to factor, (1 + t / decay_share)^-power
    of the progress t, or with the inverse square root of the step."""
    warmup_share: float = Field(0.02, ge=0, lt=1, json_schema_extra=SCHEDULE)
    """Share of run.steps in which the rate rises linearly from zero."""
    decay_share: float = Field(0.2, gt=0, le=1, json_schema_extra=SCHEDULE)
    """For wsd: share of run.steps in which the rate falls linearly at the end. For power: its time scale."""
    power: float = Field(1.0, gt=0, json_schema_extra=SCHEDULE)
    """For polynomial and power: the exponent."""
    factor: float = Field(0.1, gt=0, lt=1, json_schema_extra=SCHEDULE)
    """For step: what each drop multiplies the rate by. For exponential: the share of the peak at the end."""
    num_drops: int = Field(2, ge=1, json_schema_extra=SCHEDULE)
    """For step: drops, evenly spread."""
    num_cycles: int = Field(4, ge=1, json_schema_extra=SCHEDULE)
    """For restarts: cycles of equal length."""
    min_ratio: float = Field(0.1, ge=0, le=1, json_schema_extra=SCHEDULE)
    """The last learning rate as a share of the peak."""


ADAMS = ("adamw", "adam", "amsgrad", "adabound", "lion")
"""Optimizers whose update has the size of the rate, whatever the gradient's."""
WHOLE = ("muon", "adafactor", "lamb")
"""Optimizers that need whole tensors."""
FLAT = ("adamw", "adam", "amsgrad", "sgd", "rmsprop", "adadelta", "rprop")
"""Optimizers that update each element by itself, whatever tensor it belongs to, and keep all state by tensor.
DeepSpeed makes its own Adagrad, without our groups of parameters."""


class EngineConfig(Section):
    """How the work is spread over processes."""

    name: Literal["ddp", "fsdp", "zero1", "zero2", "zero3"] = Field("fsdp", json_schema_extra=PLACEMENT)
    """fsdp: parameters, gradients and optimizer state sharded over the ranks (FSDP2); ddp: whole on each;
    zero1, zero2, zero3: DeepSpeed shards optimizer state, then gradients too, then parameters too."""
    num_ranks: int = Field(1, ge=1, le=1_000_000, json_schema_extra=PLACEMENT)
    """Worker processes; one per GPU where there are GPUs."""
    threads_per_rank: int = Field(0, ge=0, le=4096, json_schema_extra=PLACEMENT)
    """CPU threads of one rank; 0 shares the cores out evenly, in exact mode takes 1."""
    device: Literal["auto", "cpu", "cuda"] = Field("auto", json_schema_extra=PLACEMENT)
    """auto takes GPUs when there are enough for all ranks."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """bf16 and fp16 are autocast over fp32 weights; fp16 scales the loss, and skips steps whose gradients
    overflow. auto takes bf16 where the hardware multiplies it natively, else fp32."""
    exact: bool = False
    """Bit-identical weights on any number of ranks up to the micro-batches of a step, under ddp and fsdp."""
    exact_lanes: int = Field(0, ge=0, le=1_000_000)
    """In exact mode: ranks share gradients once per lane of consecutive micro-batches; 0 makes each a lane.
    Fewer lanes mean less communication, and at most so many ranks."""
    replicas: int = Field(1, ge=1, le=1_000_000, json_schema_extra=PLACEMENT)
    """For fsdp: copies of the sharded model, each over num_ranks / replicas ranks (HSDP)."""
    reshard_after_forward: bool = Field(True, json_schema_extra=PLACEMENT)
    """For fsdp: free gathered parameters between forward and backward: less memory, more communication."""
    deepspeed: dict[str, Any] = Field({}, json_schema_extra=PLACEMENT)
    """For zero1 to zero3: more of DeepSpeed's own settings. What follows from ours cannot be contradicted."""
    checkpointing: Literal["none", "selective", "full", "budget"] = Field("none", json_schema_extra=PLACEMENT)
    """What blocks keep for the backward, the rest being computed again: all; results of matrix products and
    fused attention; their inputs; or what fits into memory_budget."""
    memory_budget: float = Field(1.0, ge=0, le=1, json_schema_extra=PLACEMENT)
    """For checkpointing = "budget": what compiled blocks may keep, between their inputs (0) and all (1)."""
    compile: bool = Field(False, json_schema_extra=PLACEMENT)
    """Blocks are compiled (torch.compile). Bits are others than without; a resume that differs says so."""
    offload: Literal["none", "optimizer", "parameters"] = Field("none", json_schema_extra=PLACEMENT)
    """On GPUs, what is kept in the host's memory and updated there: optimizer state; or parameters, and with
    them gradients and optimizer state, which is what fsdp can."""
    collect_every: int = Field(50, ge=0, json_schema_extra=PLACEMENT)
    """Steps between collections of Python's garbage, on all ranks at once; 0 leaves them to Python."""

    @property
    def traits(self) -> Traits:
        """What the engine cuts, and what goes with it."""
        return TRAITS[self.name]

    @model_validator(mode="after")
    def _possible(self) -> "EngineConfig":
        if self.exact and self.replicas > 1:
            raise ValueError(
                "engine.exact = true with engine.replicas > 1: the sum over replicas is the library's, in an "
                "order that depends on their number; set engine.replicas to 1"
            )
        if self.exact and self.traits.is_zero:
            raise ValueError(
                f'engine.exact = true with engine.name = "{self.name}": the sums over ranks are '
                "DeepSpeed's, in an order that depends on their number; set engine.name to fsdp or ddp"
            )
        if self.deepspeed and not self.traits.is_zero:
            raise ValueError(f'engine.deepspeed does nothing for engine.name = "{self.name}"; leave it out')
        if self.exact_lanes and not self.exact:
            raise ValueError("engine.exact_lanes does nothing without engine.exact = true; leave it out")
        if self.replicas > 1 and not self.traits.replicates:
            raise ValueError(f'engine.replicas belongs to engine.name = "fsdp", not to "{self.name}"')
        if self.offload != "none" and self.offload not in self.traits.offloads:
            possible = "; ".join(
                f"{name}: {' or '.join(traits.offloads)}"
                for name, traits in TRAITS.items()
                if traits.offloads
            )
            raise ValueError(
                f'engine.offload = "{self.offload}" with engine.name = "{self.name}"; possible are {possible}'
            )
        if self.num_ranks % self.replicas:
            raise ValueError(
                f"engine.num_ranks = {self.num_ranks} cannot be cut into engine.replicas = {self.replicas} "
                "equal groups; make one a multiple of the other"
            )
        return self

    @model_validator(mode="after")
    def _recomputable(self) -> "EngineConfig":
        if self.checkpointing == "budget" and not (self.compile and self.memory_budget < 1):
            raise ValueError(
                'engine.checkpointing = "budget" is the compiler\'s to keep: set engine.compile = true and '
                'engine.memory_budget below 1, or take "selective" or "full"'
            )
        if self.memory_budget < 1 and self.checkpointing != "budget":
            raise ValueError('engine.memory_budget does nothing without engine.checkpointing = "budget"')
        if self.traits.gathers_within_blocks and (self.checkpointing == "selective" or self.compile):
            raise ValueError(
                f'engine.name = "{self.name}" gathers parameters within blocks, among the operations that '
                "engine.checkpointing = selective and engine.compile would treat as the model's; take fsdp"
            )
        if self.checkpointing == "selective" and self.compile:
            raise ValueError(
                'engine.checkpointing = "selective" with engine.compile = true: a compiled block has no '
                'single operations to choose from; take "budget" with an engine.memory_budget, or "full"'
            )
        return self


class CheckpointConfig(Section):
    """When state is saved, and what is kept."""

    every_steps: int = Field(100, ge=1, json_schema_extra=PLACEMENT)
    """Steps between saves; the last step is always saved."""
    mttf_h: float = Field(0.0, ge=0, json_schema_extra=PLACEMENT)
    """Mean time between failures of all the machines together, in hours: from the first save on the interval
    is the best for it (Young and Daly), by what saves and steps take here. 0 leaves it at every_steps."""
    keep: int = Field(2, ge=2, json_schema_extra=PLACEMENT)
    """Newest checkpoints to keep; at least 2, since the newest may turn out damaged."""
    keep_every: int = Field(0, ge=0, json_schema_extra=PLACEMENT)
    """Also keep every step divisible by this for good; 0 keeps none."""
    keep_best: bool = Field(True, json_schema_extra=PLACEMENT)
    """Also keep the checkpoint of the best validation loss."""
    copy_to: str = Field("", json_schema_extra=PLACEMENT)
    """A folder or fsspec URL (s3://bucket/run) that every finished step is copied to and proved at, with the
    run's records. `seedbed checkpoint fetch` makes a run directory of it when the disk here is lost."""

    @model_validator(mode="after")
    def _kept(self) -> "CheckpointConfig":
        if self.mttf_h and self.keep_every:
            raise ValueError(
                "checkpoint.keep_every keeps steps that it divides, and checkpoint.mttf_h saves at others; "
                "leave out one of them"
            )
        return self


class EvalConfig(Section):
    """Validation while training."""

    every_steps: int = Field(100, ge=0, json_schema_extra=SCHEDULE)
    """Steps between validations; 0 turns them off."""
    num_samples: int = Field(64, ge=1, json_schema_extra=SCHEDULE)
    """Held-out windows per validation, always the same ones."""
    patience: int = Field(0, ge=0, json_schema_extra=SCHEDULE)
    """The run ends after so many validations in a row without improvement; 0 never does."""
    min_delta: float = Field(0.0, ge=0, json_schema_extra=SCHEDULE)
    """For patience: by how much less than the least so far a validation loss counts as improved."""
    restore_best: bool = Field(False, json_schema_extra=SCHEDULE)
    """At its end the run goes back to the step of the least validation loss, which is its newest then; each
    step with a new least is saved. A resume goes on from there."""
    tasks: tuple[str, ...] = Field((), strict=False, json_schema_extra=PLACEMENT)
    """Tasks that the model is asked at every validation, as `seedbed eval --tasks` names them; their results
    are kept with those."""
    task_items: int = Field(64, ge=1, json_schema_extra=PLACEMENT)
    """The first so many items of each."""
    prompt: str = Field("", json_schema_extra=PLACEMENT)
    """Text that is continued at every validation, for the report; empty continues nothing."""
    sample_tokens: int = Field(64, ge=1, json_schema_extra=PLACEMENT)
    """Tokens of that continuation."""

    @model_validator(mode="after")
    def _watched(self) -> "EvalConfig":
        if (self.patience or self.restore_best) and not self.every_steps:
            raise ValueError("eval.patience and eval.restore_best need validations: set eval.every_steps")
        if self.min_delta and not self.patience:
            raise ValueError("eval.min_delta does nothing without eval.patience; leave it out")
        return self


class TrackingConfig(Section):
    """Mirrors of the run's own records. None of them can slow or stop the run."""

    mlflow: bool = Field(True, json_schema_extra=PLACEMENT)
    """Mirror parameters and metrics to MLflow, from a process of its own."""
    uri: str = Field("", json_schema_extra=PLACEMENT)
    """MLflow tracking address; empty means an SQLite file beside the run directory."""
    experiment: str = Field("seedbed", json_schema_extra=PLACEMENT)
    """MLflow experiment."""
    log_every: int = Field(10, ge=1, json_schema_extra=PLACEMENT)
    """Steps between console lines."""
    layer_norms: int = Field(0, ge=0, json_schema_extra=PLACEMENT)
    """Steps between rows with the norms of each layer's weights, gradients and activations; 0 writes none."""
    profile: str = Field("", json_schema_extra=PLACEMENT)
    """Steps FIRST:LAST whose time rank 0 writes down, operation by operation, in the run's profile folder."""

    @model_validator(mode="after")
    def _profiled(self) -> "TrackingConfig":
        if self.profile:
            profiled_steps(self.profile)
        return self


def profiled_steps(text: str) -> range:
    """The steps of `tracking.profile`; raises ValueError when it is not FIRST:LAST."""
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise ValueError(
            f'tracking.profile = "{text}" is not FIRST:LAST with 1 <= FIRST <= LAST, such as "10:13"'
        )
    return range(int(first), int(last) + 1)
