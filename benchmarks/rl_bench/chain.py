"""The runs that policies of Python functions begin from: gpt-demo -> sft-demo -> comparisons -> rm-demo."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rl_bench.runs import seedbed

from training.run_directory import read_json

PARTS = ("runs/gpt", "runs/sft", "runs/rm", "comparisons.jsonl")
FEW = ("run.steps=6", "eval.every_steps=0")
FEW_ANSWERS = (
    "rl.prompts=4", "rl.answers=2", "rl.epochs=1", "rl.max_new_tokens=16", "batch.tokens_per_step=2048",
    "rl.critic_warmup=0",
)  # fmt: skip


def trained(folder: Path, recipe: str, run: Path, settings: Sequence[str], *arguments: str) -> Path:
    """A run of a recipe that has finished; what another attempt left half way is made anew."""
    if read_json(run / "status.json").get("state") != "finished":
        shutil.rmtree(run, ignore_errors=True)
        print(f"== {run.name}", file=sys.stderr, flush=True)
        sets = [word for one in ("tracking.mlflow=false", *settings) for word in ("--set", one)]
        seedbed(folder, "train", recipe, "--run-dir", str(run), *arguments, *sets)
    return run


@contextmanager
def chain_of(quick: bool) -> Iterator[Path]:
    """A folder with `PARTS`: $SEEDBED_CHAIN, where what is missing is made and all runs stay, or one that
    goes away again."""
    given = os.environ.get("SEEDBED_CHAIN")
    with tempfile.TemporaryDirectory() as folder:
        # What a few steps give has no place beside real runs.
        is_whole = given and all((Path(given) / part).exists() for part in PARTS)
        chain = Path(given).resolve() if given and (is_whole or not quick) else Path(folder)
        few, runs = (FEW if quick else ()), chain / "runs"
        gpt, sft = runs / "gpt", runs / "sft"
        if not sft.is_dir():
            trained(chain, "gpt-demo", gpt, few)
            trained(chain, "sft-demo", sft, few, "--init-from", str(gpt))
        if not (chain / "comparisons.jsonl").is_file():
            asked = ["--answers", "4", "--prompts", "60" if quick else "2000", "--as", "preference"]
            seedbed(chain, "data", "judge", str(sft), *asked, "--out", "comparisons.jsonl")
        if not (runs / "rm").is_dir():
            trained(chain, "rm-demo", runs / "rm", few, "--init-from", str(sft))
        yield chain
