"""What a real run reads, by the hashes that it records: with mixture and packing, on any number of ranks."""

import json
from pathlib import Path

import pytest

from data.build import build_dataset
from data.config import DataConfig
from data.shards import Dataset
from seedbed.randomness import generator
from training.metrics import surviving_rows
from training.run_directory import read_json

STEPS = 8


def corpus(folder: Path, seed: int, count: int = 40) -> Path:
    folder.mkdir()
    for number in range(count):
        words = generator(seed, "text", number).integers(
            2000, size=int(generator(number, "n").integers(20, 400))
        )
        (folder / f"{number:02d}.txt").write_text(" ".join(f"word{value}" for value in words))
    return folder


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("datasets")
    web = build_dataset(DataConfig(source=str(corpus(folder / "a", 1)), vocab_size=400), folder / "web")
    code = DataConfig(source=str(corpus(folder / "b", 2)), tokenizer=str(web / "tokenizer.json"))
    return web, build_dataset(code, folder / "code")


def settings(datasets: tuple[Path, Path], **changes: object) -> list[str]:
    web, code = datasets
    chosen = {
        "data.paths": f'{{web = "{web}", code = "{code}"}}',
        "order.stages": "[{from_tokens = 0, weights = {web = 0.7, code = 0.3}}, "
        "{from_tokens = 1024, weights = {web = 0.2, code = 0.8}}]",
        "order.packing": "best-fit",
        "order.within_documents": "true",
        "model.num_layers": 1,
        "model.width": 32,
        "model.num_heads": 2,
        "model.num_kv_heads": 2,
        "model.context": 32,
        "batch.tokens_per_step": 256,
        "batch.micro_batch_size": 1,
        "run.steps": STEPS,
        "checkpoint.every_steps": 4,
        "eval.every_steps": 0,
        "eval.prompt": "",
        "tracking.mlflow": "false",
        "engine.threads_per_rank": 1,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]


def hashes(run: Path) -> list[str]:
    return [row["data_hash"] for row in surviving_rows(run) if row["kind"] == "train"]


@pytest.mark.long
def test_the_same_samples_in_the_same_order_on_any_number_of_ranks(tmp_path, datasets, seedbed_cli):
    """Otherwise a run that lost a node would learn from other data, and nobody would know."""
    web = settings(datasets)
    for ranks in (1, 2):
        outcome = seedbed_cli(
            "train", "gpt-demo", "--run-dir", f"r{ranks}", *web, "--set", f"engine.num_ranks={ranks}"
        )
        assert outcome.code == 0, outcome.stderr
    stopped = settings(datasets, run__steps=4, engine__num_ranks=2)
    assert seedbed_cli("train", "gpt-demo", "--run-dir", "resumed", *stopped).code == 0
    more = ["--set", f"run.steps={STEPS}", "--set", "engine.num_ranks=4"]
    outcome = seedbed_cli("train", "--resume", "resumed", *more)
    assert outcome.code == 0, outcome.stderr

    recorded = hashes(tmp_path / "r1")
    assert len(set(recorded)) == STEPS
    assert hashes(tmp_path / "r2") == recorded
    assert hashes(tmp_path / "resumed") == recorded, "two ranks, then four"
    for ranks in (1, 8):
        traced = seedbed_cli(
            "data", "trace", "gpt-demo", "--steps", f"1:{STEPS}", "--json", *web,
            "--set", f"engine.num_ranks={ranks}",
        )  # fmt: skip
        assert traced.code == 0, traced.stderr
        rows = [json.loads(line) for line in traced.stdout.splitlines()]
        assert [row["data_hash"] for row in rows] == recorded
        assert [row["sources"]["code"] for row in rows[:4]] == [2, 3, 2, 3]
        assert [row["sources"]["code"] for row in rows[4:]] == [6, 7, 6, 6]

    assert seedbed_cli("data", "trace", "r2", "--steps", f"1:{STEPS}").stdout.count("as recorded") == STEPS
    plan = read_json(tmp_path / "r1" / "plan.json")
    assert set(plan["data"]["epochs"]) == {"web", "code"}
    for rates in plan["data"]["packing"].values():
        assert rates["cropped_tokens"] == rates["padded_tokens"] == 0
        assert 0 < rates["cut_documents"] <= rates["cut_documents_without_packing"]


def test_a_run_on_other_data_than_it_recorded_is_told(tmp_path, datasets, seedbed_cli):
    """Otherwise a trace would agree with whatever it is shown."""
    outcome = seedbed_cli("train", "gpt-demo", "--run-dir", "r", *settings(datasets, run__steps=2))
    assert outcome.code == 0, outcome.stderr
    outcome = seedbed_cli("data", "trace", "r", "--steps", "1:2", "--set", "run.seed=1")
    assert outcome.code == 3
    assert "2 of the steps" in outcome.stderr


def test_mixing_two_tokenizers_is_refused(tmp_path, datasets, seedbed_cli):
    """Otherwise the same id would mean two words, and the loss would only look odd."""
    other = build_dataset(
        DataConfig(source=str(corpus(tmp_path / "c", 3)), vocab_size=300), tmp_path / "other"
    )
    outcome = seedbed_cli("train", "gpt-demo", "--run-dir", "r", *settings((datasets[0], other)))
    assert outcome.code == 3, outcome.stderr
    assert "tokenizers" in outcome.stderr
    assert Dataset.open(other).tokenizer_fingerprint[:16] in outcome.stderr
    assert not (tmp_path / "r").exists()


def test_too_many_epochs_are_announced_before_they_are_paid_for(tmp_path, datasets, seedbed_cli):
    """Otherwise a small source would be learnt by heart, and the plan would have known."""
    few = settings(datasets, run__steps=2, batch__tokens_per_step=32 * 2000, batch__micro_batch_size=500)
    outcome = seedbed_cli("train", "gpt-demo", "--run-dir", "r", *few)
    assert outcome.code == 0, outcome.stderr
    assert "epochs" in outcome.stderr
