"""What probes found of an encoder: by mode, over all seeds, with intervals over documents and over seeds."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from data.config import DataConfig
from data.shards import Dataset
from data.sources import Drop, open_source
from data.tokenizers import load_tokenizer
from evals.intervals import clusters_of, mean_of, measure, t_quantile
from evals.probes.encoded import Encoded, Encoder
from evals.probes.examples import BUILDERS, Example, Kind, read_examples
from evals.probes.fitting import Fit, Mode, answers, check_encoder, fitted
from evals.results import own_dataset, stamped
from evals.tasks.local import Text
from seedbed.errors import DataError, UsageError, did_you_mean
from seedbed.files import digest_of, write_json
from seedbed.progress import Progress
from seedbed.randomness import generator
from training.checkpoint.layout import run_of
from training.checkpoint.models import LoadedModel, load_model

MODES: tuple[Mode, ...] = ("linear", "tuned")
METRICS = {"sequence": "accuracy", "pair": "accuracy", "tagging": "accuracy of tags", "span": "exact match"}
MAX_TRAIN, MAX_TEST = 2000, 400


def probe(
    run_or_step: Path,
    names: Sequence[str],
    *,
    other: Path | None = None,
    files: Mapping[str, tuple[Path, Path]] | None = None,
    modes: Sequence[Mode] = MODES,
    num_seeds: int = 5,
    how: Fit | None = None,
) -> dict[str, Any]:
    """Heads on a run's newest good checkpoint, or on the step that is given, for each of `names`.

    They learn from the texts that the run was trained on, and are scored on those that it held out; of
    `files`, from the first of two and on the second. With `other`, heads on that checkpoint learn the same in
    the same order, and the two are compared. Returns {"run", "step", "probes": {name: result}, "files"}, all
    of it JSON; each result is written to RUN/evals/ as well. UsageError for a probe that there is not.
    """
    files, how = files or {}, how or Fit()
    for name in names:
        if name not in BUILDERS and name not in files:
            remedy = did_you_mean(name, BUILDERS, f"there are {', '.join(BUILDERS)}")
            raise UsageError(f"there is no probe {name!r}", remedy)
    if num_seeds < 2:
        raise UsageError(f"{num_seeds} seed(s) say nothing of how much a seed matters", "take 5")
    checkpoint, against = load_model(run_or_step), load_model(other) if other else None
    for one in filter(None, (checkpoint, against)):
        check_encoder(one)
    run, results, written = run_of(checkpoint.path), {}, []
    texts: dict[str, list[Text]] = {}
    for name in names:
        started = time.monotonic()
        if name in files:
            sets = [read_examples(path) for path in files[name]]
            _check_files(files[name], sets)
        else:
            texts = texts or texts_of(checkpoint)
            sets = [list(BUILDERS[name](texts[split], 0)) for split in ("train", "holdout")]
        train, test = _some(name, sets[0], MAX_TRAIN), _some(name, sets[1], MAX_TEST)
        found = _probed(name, train, test, checkpoint, against, modes, num_seeds, how)
        results[name] = stamped(f"probe-{name}", checkpoint.step, found, started)
        (run / "evals").mkdir(exist_ok=True)
        which = f"-{found['items'][:8]}" if name in files else ""
        path = run / "evals" / f"probe-{name}-step-{checkpoint.step}{which}.json"
        write_json(path, results[name])
        written.append(str(path))
    return {"run": str(run), "step": checkpoint.step, "probes": results, "files": written}


def _check_files(paths: tuple[Path, Path], sets: Sequence[Sequence[Example]]) -> None:
    """DataError for a test that asks what the other file does not teach."""
    kinds = [examples[0].kind for examples in sets]
    if kinds[0] != kinds[1]:
        raise DataError(
            f"{paths[0]} has examples of the kind {kinds[0]}, and {paths[1]} of the kind {kinds[1]}",
            "give both of one kind",
        )
    taught, asked = ({label for one in some for label in one.tags or (one.label,)} for some in sets)
    if kinds[0] != "span" and len(taught) < 2:
        raise DataError(
            f"{paths[0]} has one label alone: {', '.join(taught)}", "give examples of two or more"
        )
    if kinds[0] != "span" and not asked & taught:
        raise DataError(f"no label of {paths[1]} stands in {paths[0]}", "give both the same labels")


def _some(name: str, examples: Sequence[Example], most: int) -> list[Example]:
    """All, or as many drawn once for all."""
    order = generator(0, "probe", name).permutation(len(examples))[:most]
    return [examples[number] for number in sorted(order.tolist())]


def texts_of(checkpoint: LoadedModel) -> dict[str, list[Text]]:
    """By split, the texts as they were before any tokenizer saw them: some tokenizers lose white space."""
    dataset = Dataset.open(own_dataset(checkpoint))
    split_of = {
        about["id"]: split for split in ("train", "holdout") for about, _ in dataset.split(split).documents()
    }
    source = open_source(DataConfig.model_validate({"source": checkpoint.config.data.source}))
    found: dict[str, list[Text]] = {"train": [], "holdout": []}
    for one in source.documents(lambda num_bytes: None):
        if not isinstance(one, Drop) and one.id in split_of:
            found[split_of[one.id]].append(Text(one.id, one.source, one.text))
    if not all(found.values()):
        raise DataError(
            f"the texts of {dataset.location} are not found again at {checkpoint.config.data.source}",
            "give examples in files",
        )
    return found


def _probed(
    name: str,
    train: Sequence[Example],
    test: Sequence[Example],
    checkpoint: LoadedModel,
    against: LoadedModel | None,
    modes: Sequence[Mode],
    num_seeds: int,
    how: Fit,
) -> dict[str, Any]:
    if not train or not test:
        raise DataError(
            f"{name}: there are {len(train)} examples to learn from and {len(test)} to score",
            "give a checkpoint with more held-out texts, or files",
        )
    kind = train[0].kind
    scores: dict[str, list[list[float]]] = {}
    with Progress(name, len(modes) * num_seeds * (1 + bool(against))) as bar:
        for label, model in (("own", checkpoint), ("other", against)):
            if model is None:
                continue
            encoder = Encoder(load_tokenizer(model.tokenizer_path), model.config.model.context, train)
            known = [[one for one in map(encoder.encode, some) if one] for some in (train, test)]
            if not all(known):
                raise DataError(f"{name}: no example fits the model's context", "take shorter ones")
            for mode in modes:
                for seed in range(num_seeds):
                    head = fitted(model, kind, encoder, known[0], mode, seed, how)
                    found = answers(head, kind, encoder, known[1])
                    pairs = zip(known[1], found, strict=True)
                    scores.setdefault(f"{label} {mode}", []).append([_score(kind, *pair) for pair in pairs])
                    bar.advance(1)
    asked = [one.example for one in known[1]]
    metrics = {f"{METRICS[kind]}, {mode}": _told(asked, scores[f"own {mode}"]) for mode in modes}
    for one in metrics.values():
        one["over_seeds"] = _within(one["over_seeds"])
    first, *_ = reversed(metrics)
    result = {
        **metrics[first],
        "metric": first,
        "unit": METRICS[kind],
        "metrics": metrics,
        "most_frequent": _most_frequent(kind, known[0], known[1]),
        "num_train": len(known[0]),
        "num_items": len(known[1]),
        "num_left_out": len(test) - len(known[1]),
        "labels": encoder.labels if kind != "span" else [],
        "method": {**asdict(how), "seeds": num_seeds, "modes": list(modes)},
        "items": digest_of([asdict(one) for one in asked])[:16],
    }
    if against:
        result["against"] = str(against.path)
        result["comparisons"] = {
            mode: _compared(asked, scores[f"own {mode}"], scores[f"other {mode}"]) for mode in modes
        }
    return result


def _score(kind: Kind, one: Encoded, answer: list[int]) -> float:
    """The share of its targets that were hit; of a span, all or nothing."""
    hits = [target == found for target, found in zip(one.targets, answer, strict=True)]
    return float(all(hits)) if kind == "span" else fmean(hits)


def _told(asked: Sequence[Example], by_seed: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Of the items' means over the seeds, with both intervals."""
    items = [fmean(scores) for scores in zip(*by_seed, strict=True)]
    seeds = [fmean(scores) for scores in by_seed]
    clusters = clusters_of([one.document or one.id for one in asked])
    about = {"greater_is_better": True, "smooth": None, "seeds": seeds, "over_seeds": _over(seeds)}
    return measure(mean_of(items), clusters).as_json() | about


def _over(values: Sequence[float]) -> list[float]:
    """The mean's 95 % interval, by Student's t."""
    half = t_quantile(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return [fmean(values) - half, fmean(values) + half]


def _within(ends: Sequence[float]) -> list[float]:
    """Of a share, which neither end can leave."""
    return [min(1.0, max(0.0, end)) for end in ends]


def _compared(
    asked: Sequence[Example], own: Sequence[Sequence[float]], other: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """Own minus other, seed by seed and item by item; a verdict takes both intervals."""
    differences = [[a - b for a, b in zip(*pair, strict=True)] for pair in zip(own, other, strict=True)]
    told = _told(asked, differences)
    ends = [(told["low"], told["high"]), tuple(told["over_seeds"])]
    if all(low is not None and low > 0 for low, _ in ends):
        verdict = "better"
    elif all(high is not None and high < 0 for _, high in ends):
        verdict = "worse"
    else:
        verdict = "tied"
    return {**told, "verdict": verdict}


def _most_frequent(kind: Kind, train: Sequence[Encoded], test: Sequence[Encoded]) -> float | None:
    """What the answer that is most frequent in training scores."""
    if kind == "span":
        return None
    (answer, _), *_ = Counter(target for one in train for target in one.targets).most_common(1)
    return fmean(_score(kind, one, [answer] * len(one.targets)) for one in test)
