"""A pole balanced on a cart (Barto, Sutton and Anderson 1983; Gymnasium's CartPole-v1), by the very policy
gradients that language models learn from here: each push is a token, an episode an answer, a step that the
pole still stands a reward of 1, and 500 of them the best there is.

    python -P -m training.rl.exercises.cartpole [--method reinforce|ppo] [--seed N] [--iterations N]

`reinforce` weighs a push by its rewards to go, less their mean; `ppo` has a critic, GAE and a clipped ratio.
Prints a line of JSON for each iteration, and one of 100 episodes of the last policy.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seedbed.errors import UsageError
from training.rl.advantages import gae, moments, rewards_to_go, whiten
from training.rl.losses import LOSSES, ClipSettings, over_tokens, value_losses

METHODS = ("reinforce", "ppo")
LONGEST = 500
EPISODES = 32
"""Of an iteration, side by side."""
EPOCHS = {"reinforce": 1, "ppo": 8}
RATE = {"reinforce": 1e-2, "ppo": 3e-3}
WIDTH, GAMMA, LAMBDA = 64, 0.99, 0.95


class Episodes(NamedTuple):
    """B of them, T steps; `mask` is false once a pole has fallen."""

    seen_BT4: Tensor
    pushes_BT: Tensor
    log_probs_BT: Tensor
    mask_BT: Tensor

    @property
    def returns_B(self) -> Tensor:
        return self.mask_BT.sum(1).float()


class Iteration(NamedTuple):
    """What its episodes came to, and the policy, which goes on learning."""

    mean_return: float
    policy: nn.Module


def learned(method: str, seed: int, iterations: int) -> Iterator[Iteration]:
    """One after another."""
    torch.manual_seed(seed)
    policy, critic = _network(2), _network(1)
    optimizer = torch.optim.Adam([*policy.parameters(), *critic.parameters()], lr=RATE[method])
    clip = ClipSettings()
    for iteration in range(iterations):
        played = play(policy, EPISODES, seed=seed * 1_000_003 + iteration)
        mask_BT = played.mask_BT
        rewards_BT = mask_BT.float()
        with torch.no_grad():
            values_BT = critic(played.seen_BT4).squeeze(-1) * mask_BT
        if method == "ppo":
            advantages_BT, returns_BT = gae(rewards_BT, values_BT, mask_BT, GAMMA, LAMBDA)
        else:
            advantages_BT = returns_BT = rewards_to_go(rewards_BT, mask_BT, GAMMA)
        advantages_BT = whiten(advantages_BT, mask_BT, moments(advantages_BT, mask_BT))
        for _ in range(EPOCHS[method]):
            new_BT = _log_probs(policy(played.seen_BT4), played.pushes_BT)
            losses_BT = LOSSES[method](new_BT, played.log_probs_BT, advantages_BT, mask_BT, clip).losses
            total, weight = over_tokens(losses_BT, mask_BT)
            loss = total / weight
            if method == "ppo":
                guesses_BT = critic(played.seen_BT4).squeeze(-1)
                errors = over_tokens(value_losses(guesses_BT, values_BT, returns_BT, None).losses, mask_BT)
                loss = loss + errors.total / errors.weight
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([*policy.parameters(), *critic.parameters()], 0.5)
            optimizer.step()
        yield Iteration(played.returns_B.mean().item(), policy)


@torch.no_grad()
def play(policy: nn.Module, episodes: int, seed: int) -> Episodes:
    """Pushes are drawn from the policy; poles and draws are a function of the seed."""
    try:
        import gymnasium
    except ModuleNotFoundError as error:
        raise UsageError(
            "CartPole is Gymnasium's, which is not here", "pip install 'seedbed[control]'"
        ) from error
    carts = gymnasium.make_vec("CartPole-v1", num_envs=episodes, vectorization_mode="vector_entry_point")
    draw = torch.Generator().manual_seed(seed)
    seen, _ = carts.reset(seed=seed % 2**31)
    stands_B = torch.ones(episodes, dtype=torch.bool)
    steps: list[tuple[Tensor, ...]] = []
    while len(steps) < LONGEST and stands_B.any():
        seen_B4 = torch.from_numpy(seen).float()
        logits_B2 = policy(seen_B4)
        pushes_B = torch.multinomial(logits_B2.softmax(-1), 1, generator=draw).squeeze(-1)
        steps.append((seen_B4, pushes_B, _log_probs(logits_B2, pushes_B), stands_B))
        seen, _, fallen, cut, _ = carts.step(pushes_B.numpy())
        # What a cart does after its pole has fallen is another episode.
        stands_B = stands_B & ~torch.from_numpy(fallen | cut)
    carts.close()
    return Episodes(*(torch.stack(column, dim=1) for column in zip(*steps, strict=True)))


def _log_probs(logits: Tensor, pushes: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, pushes[..., None]).squeeze(-1)


def _network(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, outputs))


def outcome(method: str, seed: int, iterations: int) -> dict[str, Any]:
    """Mean returns: of every iteration's episodes, and of 100 of the last policy."""
    told = list(learned(method, seed, iterations))
    after = play(told[-1].policy, 100, seed=2**30 + seed).returns_B.mean().item()
    return {"method": method, "seed": seed, "curve": [one.mean_return for one in told], "after": after}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", choices=METHODS, default="reinforce")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = outcome(options.method, options.seed, options.iterations)
    for iteration, value in enumerate(found.pop("curve")):
        print(json.dumps({"iteration": iteration, "return": round(value, 1)}))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
