"""What is left of a score when the text is not as clean as the benchmark's.

perturbations   typing errors, case, white space, prompt templates: functions of (text, seed)
effects         what they cost: each, on average, and in the worst case, with intervals; and texts of
                sources that training has not seen
smoothing       a certificate: no change of k words can turn the answer
"""

from evals.robustness.effects import Robustness, by_distribution, robustness
from evals.robustness.perturbations import PERTURBATIONS, Perturbation

__all__ = ["PERTURBATIONS", "Perturbation", "Robustness", "by_distribution", "robustness"]
