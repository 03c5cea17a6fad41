"""Rewards of answers: one reward model, or several put together, and how well they agree with raters.

scoring.py       token sequences -> rewards, by any number of reward models
ensembles.py     how several rewards of an answer become one
calibration.py   the temperature of the raters' noise, and how far probabilities can be trusted
normalization.py a reward model whose rewards of given answers have mean 0 and variance 1
"""
