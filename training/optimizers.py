"""Optimizers by name, over parameters by name: torch's own, and those of `pytorch_optimizer`.

Most rules work element by element, so that a shard of a parameter is updated as the whole would be. Some need
the whole tensor (`OptimizerConfig.needs_whole`): an engine that shards parameters brings it together first.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from models.families import is_hidden_matrix
from seedbed.errors import ConfigError
from training.sections import OptimizerConfig

DECOUPLED = ("adamw", "muon", "adafactor", "lion")
"""Whose weight decay is a share of the weight; that of the others is added to the gradient, LAMB's to the
update before its length is set."""

MUON_MOMENTUM = 0.95
"""Jordan et al. 2024."""

STEP = "optimizer/step"
"""How often an optimizer has stepped that counts for all parameters at once."""


def _is_muons(config: OptimizerConfig, name: str, num_dims: int) -> bool:
    """Muon is for hidden matrices; embeddings, heads and vectors are AdamW's."""
    return config.name == "muon" and is_hidden_matrix(name, num_dims)


def make_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]],
    config: OptimizerConfig,
    lr_scale: Callable[[str], float] = lambda _: 1.0,
    *,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """The configured optimizer; weight decay and penalties fall on matrices alone, never on biases or gains.

    A parameter learns at the scheduled rate times `lr_scale` of its name, which its group states under that
    name and whoever sets the rate multiplies by. Decoupled weight decay is divided by it, so that their
    product, the share of a weight that is forgotten in a step, is the same for all matrices. Without `fused`,
    an element's update does not depend on where it lies in a shard. A group says in `is_matrices` what it
    holds, since an engine may flatten it. Raises ConfigError when a package is missing.
    """
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        # DeepSpeed leaves an empty tensor in the place of a parameter that it spreads.
        ndim = len(getattr(parameter, "ds_shape", parameter.shape))
        groups.setdefault((ndim < 2, lr_scale(name), _is_muons(config, name, ndim)), []).append(parameter)
    decoupled = config.name in DECOUPLED
    optimizer = _maker(config, fused)(
        [
            {
                "params": groups[is_vector, scale, is_muons],
                "lr": config.lr * scale,
                "lr_scale": scale,
                "weight_decay": 0.0 if is_vector else config.weight_decay / (scale if decoupled else 1),
                "is_matrices": not is_vector,
                "is_muons": is_muons,
            }
            for is_vector, scale, is_muons in sorted(groups)
        ]
    )
    if config.clip_value or config.l1 or config.l2:
        optimizer.register_step_pre_hook(partial(_regularise, config))
    if config.eps_hat:
        optimizer.register_step_pre_hook(partial(_add_before_correction, config))
    return optimizer


def state_names(num_dims: dict[str, int], config: OptimizerConfig) -> set[str]:
    """Canonical names of the state that goes with parameters, given as name -> number of dimensions.

    The optimizer itself is asked, in one step over small tensors. Raises ConfigError as `make_optimizer`.
    """
    parameters = {name: nn.Parameter(torch.ones((2,) * dims)) for name, dims in num_dims.items()}
    optimizer = make_optimizer(parameters.items(), config, fused=False)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    names = {
        f"optimizer/{name}/{moment}" for name, own in parameters.items() for moment in optimizer.state[own]
    }
    return names | ({STEP} if "step" in optimizer.param_groups[0] else set())


@torch.no_grad()
def _regularise(config: OptimizerConfig, optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Clip gradients by value, then add those of the penalties."""
    for group in optimizer.param_groups:
        found = [parameter for parameter in group["params"] if parameter.grad is not None]
        gradients = [parameter.grad for parameter in found]
        if config.clip_value and found:
            torch._foreach_clamp_min_(gradients, -config.clip_value)
            torch._foreach_clamp_max_(gradients, config.clip_value)
        if group["is_matrices"] and (config.l1 or config.l2):
            for weights, gradient in zip(found, gradients, strict=True):
                gradient.add_(weights, alpha=config.l2).add_(weights.sign(), alpha=config.l1)


def _add_before_correction(config: OptimizerConfig, optimizer: torch.optim.Optimizer, *_: object) -> None:
    """eps / sqrt(1 - beta_2^t) beside the corrected root is eps beside the raw one."""
    for group in optimizer.param_groups:
        known: dict[str, Any] = next((optimizer.state[p] for p in group["params"] if optimizer.state[p]), {})
        step = int(known.get("step", 0)) + 1
        group["eps"] = config.eps / math.sqrt(1 - config.betas[1] ** step)


def _maker(config: OptimizerConfig, fused: bool) -> Callable[[Any], torch.optim.Optimizer]:
    """The class and what all groups share. Betas serve as the decay of whatever mean an optimizer keeps."""
    adam: dict[str, Any] = {"betas": config.betas, "eps": config.eps, "fused": fused}
    others: dict[str, Any] = {"betas": config.betas, "foreach": None if fused else False}
    mean = config.betas[1]
    makers: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
        "adamw": partial(torch.optim.AdamW, **adam),
        "adam": partial(torch.optim.Adam, **adam),
        "amsgrad": partial(torch.optim.Adam, **adam, amsgrad=True),
        "muon": lambda groups: _muon(groups, config, partial(torch.optim.AdamW, **adam)),
        "adafactor": torch.optim.Adafactor,
        "lion": lambda groups: _other("Lion")(groups, **others),
        "lamb": lambda groups: _lamb(groups, eps=config.eps, **others),
        "adabound": lambda groups: _other("AdaBound")(
            groups, final_lr=config.final_lr, weight_decouple=False, eps=config.eps, **others
        ),
        "sgd": partial(torch.optim.SGD, momentum=config.momentum, nesterov=config.nesterov),
        "rmsprop": partial(torch.optim.RMSprop, alpha=mean, eps=config.eps, momentum=config.momentum),
        "adagrad": partial(torch.optim.Adagrad, eps=config.eps),
        "adadelta": partial(torch.optim.Adadelta, rho=mean, eps=config.eps),
        "rprop": lambda groups: torch.optim.Rprop(
            [{name: value for name, value in group.items() if name != "weight_decay"} for group in groups]
        ),
    }
    return makers[config.name]


class Several(torch.optim.Optimizer):
    """Rules side by side, each with groups of its own, as one optimizer."""

    def __init__(self, rules: list[torch.optim.Optimizer]) -> None:
        super().__init__([group for rule in rules for group in rule.param_groups], {})
        self._rules = rules
        for rule in rules:
            rule.state = self.state

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of each."""
        for rule in self._rules:
            rule.step()


def _muon(
    groups: list[dict[str, Any]], config: OptimizerConfig, adamw: Callable[[Any], torch.optim.Optimizer]
) -> torch.optim.Optimizer:
    """With the length of updates set to AdamW's (Liu et al. 2025), so that one rate serves both."""
    muon = partial(
        torch.optim.Muon, momentum=config.momentum or MUON_MOMENTUM, adjust_lr_fn="match_rms_adamw"
    )
    rules: list[torch.optim.Optimizer] = []
    for maker, is_muons in ((muon, True), (adamw, False)):
        if own := [group for group in groups if group["is_muons"] == is_muons]:
            rules.append(maker(own))
    return Several(rules)


def _lamb(groups: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    # The library corrects the first moment's bias after the length of the update is set, by which the first
    # steps would be up to 1 / (1 - beta_1) times as long as published; `adam_debias` turns that off.
    optimizer = _other("Lamb")(groups, weight_decouple=False, adam_debias=True, **options)

    def forget_norms(*_: object) -> None:
        # Kept to be looked at; as state, they would be stored, and they are of no use to the next step.
        for state in optimizer.state.values():
            for name in ("weight_norm", "adam_norm", "trust_ratio"):
                state.pop(name, None)

    optimizer.register_step_post_hook(forget_norms)
    return optimizer


def _other(name: str) -> Callable[..., torch.optim.Optimizer]:
    try:
        import pytorch_optimizer
    except ImportError:
        raise ConfigError(
            f'optimizer.name = "{name.lower()}" needs the package pytorch_optimizer, which is not installed',
            "pip install 'seedbed[optimizers]', or choose another optimizer",
        ) from None
    found: Callable[..., torch.optim.Optimizer] = getattr(pytorch_optimizer, name)
    return found
