"""A checkpoint as a model of lm-evaluation-harness, with its tasks: `lm_eval --model seedbed`.

    python -P -m evals.lm_eval_model --model seedbed --model_args checkpoint=RUN --tasks ...

Texts are encoded, cut and scored as in our own tasks. Rolling windows are a whole context apart, as that
harness has them. It is imported here and nowhere else.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data.packages import package_missing
from data.tokenizers import load_tokenizer
from evals.requests import GenerateUntil, LogLikelihood, Rolling
from evals.scoring import CachedBackend, Scorer
from evals.scoring.cached import BATCH_SIZE
from models.generation import SamplingOptions
from seedbed.errors import UsageError
from training.checkpoint.models import load_model

MAX_NEW_TOKENS = 256


def scorer_of_checkpoint(checkpoint: str | Path, batch_size: int = BATCH_SIZE) -> Scorer:
    """A run's newest step, or a given step."""
    loaded = load_model(Path(checkpoint))
    tokenizer = load_tokenizer(loaded.tokenizer_path)
    return Scorer(CachedBackend(loaded.decoder(), batch_size=batch_size, decode=tokenizer.decode), tokenizer)


def harness_model_class() -> type[Any]:
    """The class that is registered as "seedbed"; DataError where the harness is not installed."""
    try:
        from lm_eval.api.model import LM
    except ImportError:
        raise package_missing("the harness's tasks", "lm_eval", "lm-eval") from None

    class SeedbedLM(LM):
        """`checkpoint` is a run or a step; a `scorer` may be given in its place."""

        def __init__(
            self,
            checkpoint: str | None = None,
            scorer: Scorer | None = None,
            batch_size: int | str | None = None,
            **_: Any,
        ) -> None:
            super().__init__()
            if scorer is None and checkpoint is None:
                raise UsageError("the model has no checkpoint", "--model_args checkpoint=RUN")
            size = str(batch_size)
            self.scorer = scorer or scorer_of_checkpoint(
                str(checkpoint), int(size) if size.isdigit() else BATCH_SIZE
            )

        def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            asked = [LogLikelihood(_name(one), *one.args) for one in requests]
            return [(one.log_likelihood, one.is_greedy) for one in self.scorer.log_likelihoods(asked)]

        def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
            asked = [Rolling(_name(one), one.args[0]) for one in requests]
            scored = self.scorer.rolling(asked, stride=self.scorer.backend.context)
            return [one.log_likelihood for one in scored]

        def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
            limit = self.scorer.backend.context - 1
            asked = [_generation(_name(one), one.args[0], one.args[1], limit) for one in requests]
            return [one.text for one in self.scorer.generate(asked)]

        @property
        def tokenizer_name(self) -> str:
            return self.scorer.tokenizer.fingerprint

    return SeedbedLM


def _name(request: Any) -> str:
    return f"{request.task_name} {request.doc_id}"


def _generation(name: str, context: str, options: dict[str, Any], limit: int) -> GenerateUntil:
    """The harness's settings of one request as ours."""
    until = options.get("until") or []
    temperature = float(options.get("temperature") or 0.0)
    is_sampled = bool(options.get("do_sample", temperature > 0))
    return GenerateUntil(
        name,
        context,
        min(limit, int(options.get("max_gen_toks") or options.get("max_new_tokens") or MAX_NEW_TOKENS)),
        (until,) if isinstance(until, str) else tuple(until),
        SamplingOptions(
            temperature=(temperature or 1.0) if is_sampled else 0.0,
            top_k=int(options.get("top_k") or 0),
            top_p=float(options.get("top_p") or 1.0),
        ),
        int(options.get("seed") or 0),
    )


def main() -> None:
    """The harness's own command, to which our model is known."""
    model = harness_model_class()
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import register_model

    register_model("seedbed")(model)
    run: Callable[[], None] = cli_evaluate
    run()


if __name__ == "__main__":
    main()
