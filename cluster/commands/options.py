"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print JSON documents on stdout, one a line, and nothing else there.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as run.steps=200. Repeatable."),
]
RunOrStep = Annotated[
    Path, typer.Argument(metavar="RUN_OR_STEP", help="A run directory or a checkpoints/step-N.")
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]

RewardRuns = Annotated[
    list[Path] | None,
    typer.Option("--reward", metavar="RUN", help="Judge by this reward model. Repeatable: an ensemble."),
]
Combine = Annotated[str, typer.Option(help="Of an ensemble: mean, worst, or penalised (mean less variance).")]
Rules = Annotated[
    list[str] | None,
    typer.Option(
        "--rule", help="Judge by a rule: accuracy, format, parses or python. Repeatable: their sum."
    ),
]
MaxNewTokens = Annotated[
    int,
    typer.Option(min=0, help="Where answers are cut. 0: at twice the length of the dataset's, and 16 more."),
]
Temperature = Annotated[float, typer.Option(min=0, help="How answers are sampled.")]
Prompts = Annotated[int, typer.Option(min=1, help="Prompts to answer.")]
Answers = Annotated[int, typer.Option(min=1, help="Answers to each.")]
PromptSplit = Annotated[str, typer.Option(help="Whose prompts: train or holdout.")]
AnswerSeed = Annotated[int, typer.Option(help="Answers are a function of it.")]
