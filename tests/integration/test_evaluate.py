"""Evaluation from a checkpoint on disk to a result file: real dataset, real checkpoint, real model."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from data.build import build_dataset
from data.config import DataConfig
from data.shards import Dataset
from evals.baselines import gzip_bytes
from evals.items import load_items, split_texts
from evals.results import evaluate
from evals.scoring import Span
from evals.task_scoring import scorer_of
from models.initialization import initial_values
from models.transformer import Transformer
from seedbed.errors import DataError, SeedbedError, UsageError
from training.checkpoint.models import load_model
from training.checkpoint.writer import Saver
from training.config import Config
from training.engines.base import Shard
from training.recipes import make_config, to_toml

FOLDERS = ("alpha", "beta", "gamma")


def write_texts(root: Path, num_files: int = 60) -> Path:
    """Small files in three folders, no two of them near-copies."""
    for index in range(num_files):
        generator = np.random.default_rng(index)
        words = ["".join(chr(97 + c) for c in generator.integers(0, 26, 4)) for _ in range(80)]
        path = root / FOLDERS[index % 3] / f"f{index}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("é ".join(words) + "\n", encoding="utf-8")
    return root


def build(source: Path, out: Path, **settings) -> Path:
    return build_dataset(
        DataConfig.model_validate(
            {"source": str(source), "vocab_size": 300, "holdout_fraction": 0.2, **settings}
        ),
        out,
    )


def save_checkpoint(run: Path, dataset: Path, step: int, config: Config | None = None) -> Path:
    """A step of a model, a tiny one unless said, with its initial weights, by the trainer's own writer."""
    opened = Dataset.open(dataset)
    tables = {
        "data": {"path": str(dataset)},
        "model": {
            "num_layers": 1,
            "width": 16,
            "num_heads": 2,
            "context": 32,
            "vocab_size": opened.vocab_size,
        },
    }
    config = config or make_config(tables, "test")
    model = Transformer(config.model)
    shards = []
    for name, parameter in model.named_parameters():
        values = initial_values(name, 0, parameter.numel(), config.model, seed=0).reshape(parameter.shape)
        parameter.data.copy_(parameter.data.new_tensor(values))
        shards.append(Shard(f"model/{name}", parameter.data, tuple(parameter.shape), (0,) * parameter.ndim))
    tokenizer = opened.tokenizer()
    attachments = {
        "config.toml": to_toml(config).encode(),
        tokenizer.file_name: tokenizer.to_bytes(),
    }
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.toml").write_bytes(attachments["config.toml"])
    (run / "checkpoints").mkdir(exist_ok=True)
    saver = Saver(run, 0, 1, "nonce", attachments, lambda result: None)
    saver.save(
        shards, {"step": step, "position": 0, "world": {"num_ranks": 1}, "dataset_digest": opened.digest}
    )
    saver.wait()
    return run / "checkpoints" / f"step-{step}"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads that wait for one another on a busy machine take longer than this model's arithmetic."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def dataset(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(texts, tmp_path_factory.mktemp("data") / "set")


@pytest.fixture
def run(dataset: Path, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "run", dataset, 5)
    return tmp_path / "run"


def test_a_run_is_scored_on_its_own_holdout_with_baselines(run: Path, dataset: Path):
    """The table that a user quotes: one model and four baselines on the same held-out bytes."""
    value = evaluate(run, with_baselines=True)
    result = value["tasks"]["bits-per-byte"]
    holdout = Dataset.open(dataset).split("holdout")
    assert (result["step"], result["documents"], result["utf8_bytes"]) == (
        5,
        holdout.num_documents,
        holdout.utf8_bytes,
    )
    assert result["tokens"] == holdout.num_tokens - holdout.num_documents
    # Initial weights know nothing: nearly log2(V) bits for every token.
    expected = math.log2(Dataset.open(dataset).vocab_size) * result["tokens"] / result["utf8_bytes"]
    assert result["value"] == pytest.approx(expected, rel=0.02)
    assert result["low"] < result["value"] < result["high"]
    assert set(result["by_source"]) == set(FOLDERS)
    rows = {row["name"]: row["value"] for row in result["baselines"]}
    text = b"".join(split_texts(dataset, "holdout"))
    assert rows["gzip"] == gzip_bytes(text) * 8 / len(text)
    assert set(rows) == {"gzip", "xz", "xz-primed", "ngram"}
    assert json.loads((run / "evals" / "bits-per-byte-step-5.json").read_text()) == result
    again = evaluate(run)["tasks"]["bits-per-byte"]
    assert again["baselines"] == result["baselines"]
    assert again["value"] == result["value"]


def test_a_step_directory_names_the_same_run(run: Path, dataset: Path):
    """Results of all steps of a run belong together, beside the run."""
    save_checkpoint(run, dataset, 9)
    value = evaluate(run / "checkpoints" / "step-5")
    assert value["step"] == 5
    assert value["files"] == [str(run / "evals" / "bits-per-byte-step-5.json")]
    assert evaluate(run)["step"] == 9


def test_raw_text_gives_the_score_of_the_same_bytes(run: Path, dataset: Path, tmp_path: Path):
    """Scoring a folder and scoring the dataset made of it must not be two different numbers."""
    holdout = load_items(dataset, Dataset.open(dataset).tokenizer())
    for item in holdout.items:
        path = tmp_path / "again" / item.id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(item.text)
    own = evaluate(run)["tasks"]["bits-per-byte"]
    value = evaluate(run, data=tmp_path / "again")
    raw = value["tasks"]["bits-per-byte"]
    assert raw["value"] == pytest.approx(own["value"], rel=1e-12)
    assert raw["utf8_bytes"] == own["utf8_bytes"]
    # Another text is another file: it must not replace the run's own score.
    assert value["files"] != [str(run / "evals" / "bits-per-byte-step-5.json")]
    assert (run / "evals" / "bits-per-byte-step-5.json").is_file()


def test_another_tokenizer_is_no_obstacle(run: Path, texts: Path, dataset: Path, tmp_path: Path):
    """Models of different tokenizers are compared on one dataset: its bytes count, not its tokens."""
    other = build(texts, tmp_path / "other", vocab_size=280)
    assert Dataset.open(other).tokenizer_fingerprint != Dataset.open(dataset).tokenizer_fingerprint
    result = evaluate(run, data=other)["tasks"]["bits-per-byte"]
    assert result["data"]["same_tokenizer"] is False
    assert result["utf8_bytes"] == Dataset.open(other).split("holdout").utf8_bytes
    assert result["items"] == evaluate(run)["tasks"]["bits-per-byte"]["items"]


def test_a_dataset_built_anew_does_not_pass_for_the_old_one(run: Path, texts: Path, tmp_path: Path):
    """A new division of the text puts training documents into the holdout: a score too good to be true."""
    moved = tmp_path / "moved"
    first = build(texts, moved / "set")
    save_checkpoint(tmp_path / "second", first, 1)
    shutil.rmtree(first)
    with pytest.raises(UsageError, match="is not at"):
        evaluate(tmp_path / "second")
    build(texts, first, seed=1)
    with pytest.raises(DataError, match="not the dataset"):
        evaluate(tmp_path / "second")


def test_an_unknown_task_is_refused_before_anything_is_loaded(tmp_path: Path):
    """A typing error should cost a second, and the message should say what was meant."""
    with pytest.raises(UsageError, match="no task 'bits-per-bite'") as caught:
        evaluate(tmp_path / "nowhere", ["bits-per-bite"])
    assert "bits-per-byte" in caught.value.fix


def test_data_that_is_not_there_is_named(run: Path, tmp_path: Path):
    """A mistyped path must not fall back to other data."""
    with pytest.raises(UsageError, match="nowhere does not exist"):
        evaluate(run, data=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        evaluate(run, data=tmp_path / "empty")


def test_tasks_of_a_file_are_scored_alike_on_one_rank_and_two(run: Path, tmp_path: Path):
    """A score would depend on how many processes, and how much memory, there happened to be."""
    text = 'kind = "multiple-choice"\n[items]\nbuild = "cloze"\nnum = 8\n[prompt]\ncontext = "{context}"\n'
    (tmp_path / "words.toml").write_text(text)
    task = str(tmp_path / "words.toml")
    value = evaluate(run, [task, "stdlib-text"], batch_size=3)
    result = value["tasks"]["words"]
    assert result["num_items"] == 8
    assert 0 <= result["low"] <= result["value"] <= result["high"] <= 1
    files = [run / "evals" / value["tasks"][name]["scores"] for name in ("words", "stdlib-text")]
    before = [file.read_bytes() for file in files]
    rows = [json.loads(line) for line in files[1].read_text().splitlines()]
    bits = sum(row["nats"] for row in rows) / math.log(2)
    assert value["tasks"]["stdlib-text"]["value"] == pytest.approx(
        bits / sum(row["utf8_bytes"] for row in rows)
    )
    again = evaluate(run, [task, "stdlib-text"], ranks=2)
    assert [file.read_bytes() for file in files] == before
    assert again["tasks"]["words"]["items"] == result["items"]
    shorter = evaluate(run, [task], limit=3, num_fewshot=1)
    assert shorter["tasks"]["words"]["num_items"] == 3
    assert files[0].read_bytes() == before[0]


def test_a_rank_that_dies_or_refuses_is_named(run: Path):
    """The others' work would be waited for without end."""
    with scorer_of(load_model(run), 2, None) as scorer:
        outside = Span("outside", (1, 10_000), (3,))
        with pytest.raises(SeedbedError, match="rank 0 of the evaluation"):
            scorer.backend.score([outside])
        scorer.backend.workers[1].kill()
        with pytest.raises(SeedbedError, match=r"rank [01] of the evaluation ended"):
            scorer.backend.score([Span("fine", (1, 2), (3,))] * 80)


def test_a_checkpoint_is_compared_with_another_item_by_item(seedbed_cli, run: Path, dataset: Path, tmp_path):
    """A difference that is noise would pass for progress, or one that is none."""
    other = tmp_path / "other"
    save_checkpoint(other, dataset, 2)
    tasks = ("--tasks", "bits-per-byte,cloze", "--limit", "8")
    same = seedbed_cli("eval", run, *tasks, "--compare", run, "--json")
    assert same.code == 0, same.stderr
    found = json.loads(same.stdout)["comparisons"]
    assert {name: (one["verdict"], one["difference"]["value"]) for name, one in found.items()} == {
        "bits-per-byte": ("tied", 0.0),
        "cloze": ("tied", 0.0),
    }
    against = seedbed_cli("eval", run, *tasks, "--compare", other, "--json")
    two = json.loads(against.stdout)
    one = two["comparisons"]["bits-per-byte"]
    values = [side["tasks"]["bits-per-byte"]["value"] for side in (two, two["compared_with"])]
    assert one["difference"]["value"] == pytest.approx(values[0] - values[1])
    assert one["verdict"] in ("better", "worse", "tied")
    assert "tied: " in seedbed_cli("eval", run, *tasks, "--compare", run).stdout
    refused = seedbed_cli("eval", run, "--tasks", "preferences", "--compare", other)
    assert (refused.code, "item by item" in refused.stderr) == (2, True)
