"""Reinforcement learning from rewards of answers: PPO and its family.

kl.py         how far a policy is from its reference, and what keeps it near
advantages.py rewards of tokens and answers -> how much better than expected each token was
losses.py     what a policy and a critic are differentiated by

Notation: B answers, T columns of the longest of them; answers begin at column 0, and mask_BT is true for
their tokens, the one that ends them too. Log-probabilities are those of the tokens that were sampled.
"""
