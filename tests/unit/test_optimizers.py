"""Every optimizer's update against its published rule, in float64; schedules against theirs."""

import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from seedbed.errors import ConfigError
from training.devices import resolve_hardware
from training.optimizers import make_optimizer
from training.recipes import load_config
from training.schedules import learning_rate
from training.sections import OptimizerConfig

LR, B1, B2, EPS = 0.01, 0.9, 0.95, 1e-8
HAT = 0.1
"""An epsilon that would be seen in the wrong place."""
State = dict[str, Tensor]


def adam(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Kingma and Ba 2015, algorithm 1."""
    s["m"] = B1 * s.get("m", 0 * g) + (1 - B1) * g
    s["v"] = B2 * s.get("v", 0 * g) + (1 - B2) * g * g
    return w - LR * (s["m"] / (1 - B1**t)) / ((s["v"] / (1 - B2**t)).sqrt() + EPS)


def adamw(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Loshchilov and Hutter 2019, algorithm 2, the decay multiplied by the rate."""
    return adam(w, g, s, t) - LR * 0.1 * w


def adam_hat(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Kingma and Ba 2015, the last line of section 2: the rate is corrected, the moments are not."""
    adam(w, g, s, t)
    return w - LR * math.sqrt(1 - B2**t) / (1 - B1**t) * s["m"] / (s["v"].sqrt() + HAT)


def amsgrad(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Reddi et al. 2018: the largest second moment so far."""
    adam(w, g, s, t)
    s["top"] = torch.maximum(s.get("top", 0 * g), s["v"])
    return w - LR * (s["m"] / (1 - B1**t)) / ((s["top"] / (1 - B2**t)).sqrt() + EPS)


def momentum(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Polyak 1964, the rate outside of the velocity."""
    s["u"] = 0.8 * s.get("u", 0 * g) + g
    return w - LR * s["u"]


def nesterov(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Sutskever et al. 2013, in the variables of the look-ahead point."""
    s["u"] = 0.8 * s.get("u", 0 * g) + g
    return w - LR * (g + 0.8 * s["u"])


def rmsprop(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Tieleman and Hinton 2012."""
    s["v"] = B2 * s.get("v", 0 * g) + (1 - B2) * g * g
    return w - LR * g / (s["v"].sqrt() + EPS)


def adagrad(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Duchi et al. 2011."""
    s["v"] = s.get("v", 0 * g) + g * g
    return w - LR * g / (s["v"].sqrt() + EPS)


def adadelta(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Zeiler 2012, algorithm 1, with a rate before the step."""
    s["v"] = B2 * s.get("v", 0 * g) + (1 - B2) * g * g
    step = (s.get("d", 0 * g) + EPS).sqrt() / (s["v"] + EPS).sqrt() * g
    s["d"] = B2 * s.get("d", 0 * g) + (1 - B2) * step * step
    return w - LR * step


def rprop(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Riedmiller and Braun 1993: steps grow by 1.2 while the sign stays, and are halved when it turns."""
    turned = s.get("g", 0 * g) * g
    step = s.get("step", torch.full_like(g, LR))
    step = torch.where(turned > 0, 1.2 * step, torch.where(turned < 0, 0.5 * step, step)).clamp(1e-6, 50)
    s["step"], s["g"] = step, torch.where(turned < 0, 0 * g, g)
    return w - step * s["g"].sign()


def lion(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Chen et al. 2023, algorithm 2, the decay decoupled."""
    m = s.get("m", 0 * g)
    s["m"] = B2 * m + (1 - B2) * g
    return w - LR * ((B1 * m + (1 - B1) * g).sign() + 0.1 * w)


def lamb(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """You et al. 2020, algorithm 2 without bias correction, phi(z) = min(z, 10)."""
    s["m"] = B1 * s.get("m", 0 * g) + (1 - B1) * g
    s["v"] = B2 * s.get("v", 0 * g) + (1 - B2) * g * g
    r = s["m"] / (s["v"].sqrt() + EPS) + 0.1 * w
    return w - LR * w.norm().clamp(max=10) / (r.norm() + EPS) * r


def adabound(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Luo et al. 2019, algorithm 1, with their code's bounds (gamma 1e-3), corrections and penalty."""
    g = g + 0.1 * w
    s["m"] = B1 * s.get("m", 0 * g) + (1 - B1) * g
    s["v"] = B2 * s.get("v", 0 * g) + (1 - B2) * g * g
    rate = LR * math.sqrt(1 - B2**t) / (1 - B1**t) / (s["v"].sqrt() + EPS)
    return w - rate.clamp(0.1 * (1 - 1 / (1e-3 * t + 1)), 0.1 * (1 + 1 / (1e-3 * t))) * s["m"]


def adafactor(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Shazeer and Stern 2018, algorithms 4 and 5: relative steps of at most the rate, means for sums."""
    decay, floor = 1 - t**-0.8, torch.finfo(w.dtype).eps
    s["r"] = decay * s.get("r", 0 * g[:, :1]) + (1 - decay) * (g * g).mean(1, keepdim=True)
    s["c"] = decay * s.get("c", 0 * g[:1]) + (1 - decay) * (g * g).mean(0, keepdim=True)
    u = g / (s["r"] @ s["c"] / s["r"].mean().clamp(min=floor)).sqrt().clamp(min=floor)
    rms = w.square().mean().sqrt().clamp(min=1e-3)
    return w * (1 - LR * 0.1) - min(LR, t**-0.5) * rms * u / u.square().mean().sqrt().clamp(min=1)


def muon(w: Tensor, g: Tensor, s: State, t: int) -> Tensor:
    """Jordan et al. 2024: momentum, Nesterov's, and five steps towards the nearest orthogonal matrix.

    The length of the update is AdamW's (Liu et al. 2025).
    """
    s["m"] = 0.95 * s.get("m", 0 * g) + 0.05 * g
    x = 0.05 * g + 0.95 * s["m"]
    x = x / x.norm()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return w * (1 - LR * 0.1) - LR * 0.2 * math.sqrt(max(w.shape)) * x


RULES: dict[str, tuple[Callable[[Tensor, Tensor, State, int], Tensor], dict[str, object]]] = {
    "adam": (adam, {}),
    "adamw": (adamw, {"weight_decay": 0.1}),
    "adam with epsilon hat": (adam_hat, {"name": "adam", "eps_hat": True, "eps": HAT}),
    "amsgrad": (amsgrad, {}),
    "sgd": (lambda w, g, s, t: w - LR * g, {}),
    "momentum": (momentum, {"name": "sgd", "momentum": 0.8}),
    "nesterov": (nesterov, {"name": "sgd", "momentum": 0.8, "nesterov": True}),
    "rmsprop": (rmsprop, {}),
    "adagrad": (adagrad, {}),
    "adadelta": (adadelta, {}),
    "rprop": (rprop, {}),
    "lion": (lion, {"weight_decay": 0.1}),
    "lamb": (lamb, {"weight_decay": 0.1}),
    "adabound": (adabound, {"weight_decay": 0.1}),
    "adafactor": (adafactor, {"weight_decay": 0.1}),
    "muon": (adamw, {"weight_decay": 0.1}),  # what is in no block
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_an_update_is_the_published_one(rule, fused):
    """Seven steps along gradients that turn."""
    expected_update, settings = RULES[rule]
    config = OptimizerConfig(**{"name": rule, "lr": LR, "eps": EPS, "weight_decay": 0.0, **settings})
    random = torch.Generator().manual_seed(0)
    weights = nn.Parameter(torch.randn(4, 5, generator=random, dtype=torch.float64))
    optimizer = make_optimizer([("w", weights)], config, fused=fused)
    expected, state = weights.detach().clone(), {}
    for t in range(1, 8):
        gradient = torch.randn(4, 5, generator=random, dtype=torch.float64)
        weights.grad = gradient.clone()
        optimizer.step()
        expected = expected_update(expected, gradient, state, t)
        torch.testing.assert_close(weights.detach(), expected, rtol=1e-10, atol=1e-12)


def test_muon_moves_hidden_matrices_as_published():
    """Step by step, within 5 % of an update: torch orthogonalises by five iterations in bfloat16."""
    config = OptimizerConfig(name="muon", lr=LR)
    random = torch.Generator().manual_seed(0)
    weights = nn.Parameter(torch.randn(4, 5, generator=random, dtype=torch.float64))
    gain = nn.Parameter(torch.ones(5, dtype=torch.float64))
    optimizer = make_optimizer([("blocks.0.mlp.up.weight", weights), ("blocks.0.norm.weight", gain)], config)
    state: State = {}
    for t in range(1, 8):
        weights.grad = torch.randn(4, 5, generator=random, dtype=torch.float64)
        gain.grad = torch.ones_like(gain)
        expected = muon(weights.detach().clone(), weights.grad, state, t)
        optimizer.step()
        torch.testing.assert_close(weights.detach(), expected, rtol=0, atol=0.05 * LR * 0.2 * 5**0.5)
    # AdamW's, without decay: a rate per step.
    torch.testing.assert_close(gain.detach(), torch.full_like(gain, 1 - 7 * LR), rtol=1e-6, atol=0)


def test_an_optimizer_of_a_missing_package_says_what_to_install(monkeypatch):
    """And not that some module was not found."""
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(ConfigError, match=r"needs the package pytorch_optimizer") as raised:
        make_optimizer([("w", nn.Parameter(torch.ones(2, 2)))], OptimizerConfig(name="lion"))
    assert "seedbed[optimizers]" in raised.value.fix
    # Before any data is built.
    with pytest.raises(ConfigError, match=r"not installed here") as raised:
        resolve_hardware(load_config("gpt-demo", ["optimizer.name=lamb", "engine.device=cpu"]))
    assert "seedbed[optimizers]" in raised.value.fix


def test_rules_of_whole_tensors_do_not_go_with_mup():
    """The rates of its table are for Adam."""
    with pytest.raises(ConfigError, match="mup_base_width"):
        load_config("gpt-demo", ["model.mup_base_width=64", "optimizer.name=muon"])


def test_settings_that_an_optimizer_does_not_read_are_refused():
    """They would be believed to do something."""
    with pytest.raises(ValueError, match="momentum does nothing"):
        OptimizerConfig(name="adamw", momentum=0.9)
    with pytest.raises(ValueError, match="nesterov needs"):
        OptimizerConfig(name="sgd", nesterov=True)


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("linear", [], lambda p: 0.1 + 0.9 * (1 - p)),
        ("polynomial", ["schedule.power=2.0"], lambda p: 0.1 + 0.9 * (1 - p) ** 2),
        ("restarts", ["schedule.num_cycles=3"], lambda p: 0.1 + 0.45 * (1 + math.cos(math.pi * (3 * p % 1)))),
        ("exponential", ["schedule.factor=0.2"], lambda p: 0.2**p),
        (
            "power",
            ["schedule.power=1.5", "schedule.decay_share=0.3"],
            lambda p: max(0.1, (1 + p / 0.3) ** -1.5),
        ),
        ("inverse_sqrt", [], lambda p: max(0.1, math.sqrt(10 / (10 + 90 * p)))),
    ],
)
def test_a_schedule_is_its_formula(name, more, expected):
    """Between the end of the warm-up and the end of the run."""
    settings = [
        f"schedule.name={name}",
        "run.steps=100",
        "schedule.warmup_share=0.1",
        "schedule.min_ratio=0.1",
    ]
    config = load_config("gpt-demo", [*settings, "optimizer.lr=2.0", *more])
    for step in (11, 37, 55, 99):
        assert learning_rate(step, config) == pytest.approx(2.0 * expected((step - 10) / 90)), step
    assert learning_rate(5, config) == 1.0


def test_steps_drop_evenly():
    """Two drops cut the run into thirds."""
    settings = ["schedule.name=step", "run.steps=90", "schedule.warmup_share=0", "schedule.min_ratio=0"]
    config = load_config("gpt-demo", [*settings, "optimizer.lr=1.0"])
    rates = [learning_rate(step, config) for step in (1, 30, 31, 60, 61, 90)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
