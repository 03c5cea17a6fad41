"""What policies learn from rewards, and what an iteration costs, as JSON.

    python -P benchmarks/rl.py [--quick] [--only NAME] [--out FILE]

`randomwalks`: shortest paths through a graph by PPO, five seeds; of each the optimality of 320 answers that
are drawn, and of 20 that are the likeliest, before and after. `iteration`: one PPO iteration of a GPT of 6
layers and 384 wide with a critic of its size, 64 prompts of 64 tokens, 64 new ones, 4 epochs, two threads:
seconds beside TRL's PPOTrainer, ours by phase, and how fast weights reach the generator, in fp32 and at each
side's defaults. TRL stands in an environment of its own: `make peers` makes it as .venv-rl-peers, and
$SEEDBED_RL_PEERS may name the Python of another. Without it nothing is compared.
`ppo_demo`: gold before and after, and what is forgotten of the text of the pretraining, with PPO-ptx and
without; five seeds, some 40 minutes, less with $SEEDBED_CHAIN.
`arithmetic`: sums by GRPO, five seeds. `reasoning`: the pipeline r1-demo. `cartpole`: REINFORCE and PPO on
Gymnasium's CartPole-v1, five seeds of each.
`overoptimisation`: gold while policies are optimised against one reward model or four, and what the watch
says of it; some 40 minutes, less with $SEEDBED_CHAIN. Its protocol is in rl_bench/overoptimisation.py.
"""

import sys
from pathlib import Path

SECTIONS = (
    "randomwalks", "iteration", "ppo_demo", "overoptimisation", "arithmetic", "reasoning", "cartpole",
)  # fmt: skip

if __name__ == "__main__":
    # Last, since this folder holds files with the names of packages.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.machine import run_sections

    raise SystemExit(run_sections(__doc__ or "", "rl_bench", SECTIONS))
