"""What evaluations measure: functions of what was found of each item, with no model in sight.

    base         what a metric is: what it needs of an item, and the statistic that follows from all items
    language     bits per byte and word, perplexities
    choices      accuracy by likelihood, four ways to make choices of different lengths comparable; Brier, ECE
    answers      exact match, token F1, pass@k
    overlap      BLEU, chrF, ROUGE
    labels       macro-F1, Matthews' and other correlations
    registry     all of them by name

A metric that jumps from wrong to right at a threshold names a smooth one beside it, which moves earlier and
says more of a small model (Schaeffer et al. 2023, "Are emergent abilities of large language models a
mirage?"; Magnusson et al. 2025, "DataDecide").

An item is a mapping, such as a line of a scores file (`evals.task_results`). Its keys, by kind of task:

    language     nats, utf8_bytes, words, tokens
    choices      log_likelihoods, choice_bytes, choice_tokens, unconditional: one entry for each choice;
                 gold: the number of the right choice, or a list of them
    answers      prediction: a text; references: a list of texts
    code         samples, passed: how many programs were run, and how many of them passed
    labels       predicted, gold; probabilities: one for each label, where gold is a number
    ratings      predicted, gold: numbers
"""

from evals.metrics.base import Metric
from evals.metrics.registry import METRICS, metric

__all__ = ["METRICS", "Metric", "metric"]
