"""`seedbed generate`: continue one text as it is written, or a file of them side by side."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cluster.commands.options import Json, RunOrStep
from cluster.output import command, emit, emit_line
from seedbed.errors import DataError, UsageError

if TYPE_CHECKING:
    from data.tokenizers import Tokenizer
    from models.generation import Engine, Request
    from models.generation.requests import Finish, SamplingOptions


class Sampling(NamedTuple):
    """How the command samples unless it is told otherwise."""

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0


USUAL = Sampling()


@command
def generate(
    checkpoint: RunOrStep,
    prompt: Annotated[
        str, typer.Option("--prompt", help="Text to continue; empty starts a new document.")
    ] = "",
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help='Texts to continue: lines of JSON, "..." or {"prompt": "..."}.'),
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1)] = 200,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = USUAL.temperature,
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.")] = USUAL.top_k,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens up to this mass.")] = USUAL.top_p,
    min_p: Annotated[
        float, typer.Option(help="Keep tokens this many times as likely as the first.")
    ] = USUAL.min_p,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1, what was said is less likely.")
    ] = USUAL.repetition_penalty,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the answer. Repeatable.")] = None,
    beams: Annotated[int, typer.Option(min=0, help="Search for the likeliest text with so many.")] = 0,
    num_samples: Annotated[
        int, typer.Option("--num-samples", min=1, help="Texts for each prompt: of --seed, --seed + 1, ...")
    ] = 1,
    ema: Annotated[bool, typer.Option("--ema", help="With the moving averages of weights.")] = False,
    seed: Annotated[int, typer.Option(help="Another seed, another text.")] = 0,
    json: Json = False,
) -> None:
    """Continue texts with a trained model: one, streaming, or many, one result a line."""
    asked_for = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    if beams:
        _refuse_beside_beams((asked_for, seed) != (USUAL, 0), several=num_samples > 1, stop=bool(stop))
    if "" in (stop or ()):
        raise UsageError(
            "--stop: a stop string is empty", "leave it out, or name the text that ends an answer"
        )
    texts = _texts(prompt, prompts)
    # After what can be refused without them: they take seconds to load.
    from data.tokenizers import load_tokenizer
    from models.generation import Engine, SamplingOptions
    from training.checkpoint.models import load_model

    options = SamplingOptions(*asked_for)
    loaded = load_model(checkpoint, ema=ema)
    tokenizer = load_tokenizer(loaded.tokenizer_path)
    engine = Engine(loaded.decoder(), decode=tokenizer.decode)
    asked = _Asked(engine, tokenizer, options, max_tokens, tuple(stop or ()))
    source = {"checkpoint": str(loaded.path), "step": loaded.step}
    if prompts or num_samples > 1:
        seeds = range(seed, seed + num_samples)
        found = _searched(asked, texts, beams) if beams else _sampled(asked, texts, seeds)
        for result in found:
            emit_line({**source, **result}, json=json, render=lambda value: value["prompt"] + value["text"])
    else:
        result = next(_searched(asked, texts, beams)) if beams else _streamed(asked, prompt, seed, not json)
        shown = prompt + result["text"] if beams else ""
        emit({**source, **result}, json=json, render=lambda _: shown)


def _refuse_beside_beams(sampled: bool, *, several: bool, stop: bool) -> None:
    """Raises UsageError for options that a search does not read."""
    if several or stop:
        raise UsageError("--beams goes with neither --num-samples nor --stop", "leave out one or the other")
    if sampled:
        raise UsageError(
            "--beams searches for the likeliest text: what belongs to sampling does nothing there",
            "leave out --temperature, --top-k, --top-p, --min-p, --repetition-penalty and --seed",
        )


def _texts(prompt: str, prompts: Path | None) -> list[str]:
    """What is to be continued. Raises UsageError or DataError."""
    if prompts and prompt:
        raise UsageError("--prompt and --prompts are both given", "give one of them")
    texts = list(_read_prompts(prompts)) if prompts else [prompt]
    for number, text in enumerate(texts, 1):
        _refuse_surrogates(text, f"{prompts}, prompt {number}" if prompts else "--prompt")
    return texts


class _Asked(NamedTuple):
    """What holds for every prompt of the command."""

    engine: "Engine"
    tokenizer: "Tokenizer"
    options: "SamplingOptions"
    max_tokens: int
    stop: tuple[str, ...]

    def tokens(self, prompt: str) -> list[int]:
        return self.tokenizer.encode(prompt) or [self.tokenizer.end_of_text_id]

    def request(self, prompt: str, seed: int) -> "Request":
        from models.generation import Request

        stop_ids = frozenset([self.tokenizer.end_of_text_id])
        return Request(self.tokens(prompt), self.max_tokens, self.options, seed, stop_ids, self.stop)

    def text(self, tokens: Sequence[int]) -> str:
        """Of an answer, without what ended it."""
        from models.generation.stops import cut_at_stop

        return cut_at_stop(self.tokenizer.decode(self._said(tokens)), self.stop)

    def result(self, prompt: str, tokens: Sequence[int], finish: "Finish") -> dict[str, Any]:
        said = self._said(tokens)
        why = finish if finish != "stop" else "end_of_text" if len(said) < len(tokens) else "stop_string"
        return {"prompt": prompt, "text": self.text(tokens), "tokens": said, "stopped_by": why}

    def _said(self, tokens: Sequence[int]) -> list[int]:
        return [token for token in tokens if token != self.tokenizer.end_of_text_id]


def _streamed(asked: _Asked, prompt: str, seed: int, show: bool) -> dict[str, Any]:
    """One text, written to stdout as far as it is certain, while it grows."""
    from models.generation.stops import safe_length

    made: list[int] = []
    shown = 0
    if show:
        sys.stdout.write(prompt)
    for event in asked.engine.stream([asked.request(prompt, seed)]):
        made.append(event.token)
        text = asked.text(made)
        certain = len(text.rstrip("\ufffd")) if event.finish else safe_length(text, asked.stop)
        if show and certain > shown:
            sys.stdout.write(text[shown:certain])
            sys.stdout.flush()
            shown = certain
        finish = event.finish
    assert finish is not None
    return asked.result(prompt, made, finish)


def _sampled(asked: _Asked, prompts: Sequence[str], seeds: range) -> Iterator[dict[str, Any]]:
    """Every prompt with every seed, side by side; each result as soon as those before it are there."""
    wanted = [(prompt, seed) for prompt in prompts for seed in seeds]
    made: list[list[int]] = [[] for _ in wanted]
    log_probs: list[list[float]] = [[] for _ in wanted]
    finishes: list[Finish | None] = [None] * len(wanted)
    first = 0
    for event in asked.engine.stream([asked.request(prompt, seed) for prompt, seed in wanted]):
        made[event.index].append(event.token)
        log_probs[event.index].append(event.log_prob)
        finishes[event.index] = event.finish
        while first < len(wanted) and (finish := finishes[first]):
            prompt, seed = wanted[first]
            result = asked.result(prompt, made[first], finish)
            yield {**result, "seed": seed, "log_prob": sum(log_probs[first])}
            first += 1


def _searched(asked: _Asked, prompts: Sequence[str], num_beams: int) -> Iterator[dict[str, Any]]:
    """The best text that a beam search finds, for every prompt."""
    from models.generation import beam_search

    for prompt in prompts:
        best = beam_search(
            asked.engine,
            asked.tokens(prompt),
            num_beams=num_beams,
            max_new_tokens=asked.max_tokens,
            stop_ids=frozenset([asked.tokenizer.end_of_text_id]),
        )[0]
        yield {**asked.result(prompt, best.tokens, best.finish), "score": best.score}


def _refuse_surrogates(text: str, where: str) -> None:
    """Raises DataError for what the shell or JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where} is not UTF-8 text: {error.reason}", "give it as UTF-8") from None


def _read_prompts(path: Path) -> Iterator[str]:
    from json import loads

    try:
        # Not splitlines: JSON may hold other characters that end a line elsewhere.
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}", "save it as UTF-8 text") from error
    except OSError as error:
        raise UsageError(f"--prompts {path}: {error.strerror}", "name a file of JSON lines") from error
    if not any(line.strip() for line in lines):
        raise UsageError(f"--prompts {path} is empty", 'write {"prompt": "..."} on each line')
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = loads(line)
        except ValueError as error:
            raise DataError(
                f"{path}, line {number} is not JSON: {error}", 'write {"prompt": "..."} or "..." on each line'
            ) from error
        prompt = row.get("prompt") if isinstance(row, dict) else row
        if not isinstance(prompt, str):
            raise DataError(
                f"{path}, line {number} holds no prompt", 'write {"prompt": "..."} or "..." on each line'
            )
        yield prompt
