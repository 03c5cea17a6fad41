"""What pretraining is worth: which package a standard-library file belongs to, told by a small BERT.

    python -P benchmarks/bert_demo.py [--work DIR] [--quick] [--out FILE]

Protocol, fixed before the runs that are reported. The recipes' settings were chosen on the split of
data.seed = 0. On that of data.seed = 1, with half the steps of pretraining, the difference was 0.056
[-0.002, 0.115]: too little pretraining. What is reported is of a third split, data.seed = 2.

- `bert-demo` is trained once, seed 0, on the training files alone; the held-out quarter of the files, whose
  near-copies are all on its side, is never learned from.
- `bert-demo-packages` is trained with seeds 0 to 4, each seed twice: from the pretrained encoder, and from
  random weights. Both have the same labels, files, order, crops, dropout, steps and learning rates; only the
  encoder's first weights differ. Each is scored at its last step, once, on all held-out files that have a
  label: accuracy on the first pieces of a file that fit the context.
- The recipe's 80 steps are three epochs, as is usual for BERT (Devlin et al. 2018: two to four). The same is
  done with 200 steps, to see what is left when random weights have longer to learn.
- Reported: accuracy of each run; the mean over the seeds of the paired difference with its 95 % interval
  (Student's t, 4 degrees of freedom). The bar holds when the interval of the recipe lies above zero.
- Beside it, on the same files: the most frequent label; TF-IDF with logistic regression (scikit-learn's
  defaults, but 1,000 iterations) on whole files, and on no more of each than the encoder is shown.

With --work, finished runs are taken up again.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

SPLIT = 2
SEEDS = range(5)
STEPS = (80, 200)
NUM_SPECIAL = 2


def main() -> int:
    """Run the protocol; 1 when the interval does not lie above zero."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, help="where runs are kept; a temporary folder without")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that everything works")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        results = compare(asked.work or Path(temporary), asked.quick)
    text = json.dumps(results, indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")
    return int(not asked.quick and results[f"{STEPS[0]} steps"]["difference"]["low"] <= 0)


def compare(work: Path, quick: bool) -> dict[str, Any]:
    """All runs, and what they show."""
    pretrained = work / "pretrained"
    train("bert-demo", pretrained, ["run.steps=4", "eval.every_steps=4"] if quick else [])
    results: dict[str, Any] = {"machine": {"processor": cpu(), "python": platform.python_version()}}
    for steps in (4,) if quick else STEPS:
        accuracies: dict[str, list[float]] = {"pretrained": [], "random": []}
        for seed in SEEDS:
            for name, begin in (("pretrained", ["--init-from", str(pretrained)]), ("random", [])):
                run = work / f"{name}-{steps}-{seed}"
                sets = [f"run.steps={steps}", f"eval.every_steps={steps}", f"run.seed={seed}"]
                train("bert-demo-packages", run, sets, begin)
                accuracies[name].append(last_accuracy(run))
                print(f"{steps} steps, seed {seed}, {name}: {accuracies[name][-1]:.4f}", file=sys.stderr)
        difference = paired(accuracies["pretrained"], accuracies["random"])
        results[f"{steps} steps"] = {"accuracy": accuracies, "difference": difference}
    return results | baselines(run)


def train(recipe: str, run: Path, sets: list[str], begin: list[str] | None = None) -> None:
    """A finished run; one that is there is taken up again."""
    command = [str(Path(sys.executable).with_name("seedbed")), "train"]
    if (run / "config.toml").exists():
        command += ["--resume", str(run)]
    else:
        command += [recipe, "--run-dir", str(run), *(begin or [])]
        for assignment in [*sets, f"data.seed={SPLIT}", "tracking.mlflow=false"]:
            command += ["--set", assignment]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def last_accuracy(run: Path) -> float:
    """Of the validation at the last step."""
    from training.metrics import surviving_rows

    return [row for row in surviving_rows(run) if row["kind"] == "eval"][-1]["val_accuracy"]


def paired(first: list[float], second: list[float]) -> dict[str, float]:
    """Mean difference, and its 95 % interval by Student's t."""
    from scipy.stats import t

    differences = np.subtract(first, second)
    half = t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    mean = float(differences.mean())
    return {"mean": mean, "low": mean - float(half), "high": mean + float(half)}


def baselines(run: Path) -> dict[str, Any]:
    """What needs no network, on the files that the run learned from and was scored on."""
    from data.shards import Dataset
    from training.checkpoint.layout import resolve
    from training.run_directory import RunDirectory

    config = RunDirectory(run).config()
    labels = set(json.loads((resolve(run) / "labels.json").read_text()))
    dataset = Dataset.open(config.data.path)
    tokenizer = dataset.tokenizer()
    shown = config.model.context - NUM_SPECIAL
    rows = {
        split: [
            (row["label"], ids) for row, ids in dataset.split(split).documents() if row.get("label") in labels
        ]
        for split in ("train", "holdout")
    }
    majority = Counter(label for label, _ in rows["train"]).most_common(1)[0][0]
    return {
        "files": {split: len(found) for split, found in rows.items()},
        "labels": sorted(labels),
        "majority": float(np.mean([label == majority for label, _ in rows["holdout"]])),
        "tf_idf_whole_files": tf_idf(rows, lambda ids: tokenizer.decode(ids[:-1].tolist())),
        "tf_idf_same_pieces": tf_idf(rows, lambda ids: tokenizer.decode(ids[:-1][:shown].tolist())),
    }


def cpu() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def tf_idf(rows: dict[str, list[tuple[str, Any]]], text_of: Any) -> float:
    """Accuracy of TF-IDF and logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
    train_rows, test_rows = rows["train"], rows["holdout"]
    model.fit([text_of(ids) for _, ids in train_rows], [label for label, _ in train_rows])
    return float(model.score([text_of(ids) for _, ids in test_rows], [label for label, _ in test_rows]))


if __name__ == "__main__":
    raise SystemExit(main())
