"""Reinforcement learning from rewards of answers: PPO and its family.

driver.py      the algorithm: rollout, score, advantage, and updates, which are the trainer's own steps
workers.py     who does what: policy, critic, reference and judge, and how their work is dealt out over ranks
settings.py    the table [rl], and the family as what its methods are made of
buffer.py      the answers of an iteration as samples of the data stream; part of a checkpoint
weights.py     the policy's weights from any engine, in buckets, for whoever generates
judging.py     all rewards of an answer, and their sum
scores.py      rewards -> the numbers that are learned from
credit.py      rewards of answers -> advantages of tokens, by the method that was chosen
critic.py      the critic's own engine, beside the policy's
rollouts.py    what a policy answered, with which weights, and what it got for it; stored to be played again
outcomes.py    what asking for a reward came to: a number, or a failure with a name
rules.py       rewards of texts by rule, and by tests of code in a sandbox (sandbox.py)
functions.py   any Python function as a reward, in a process of its own
llm_judge.py   a language model as the judge of two answers, behind an endpoint
kl.py          how far a policy is from its reference, and what keeps it near
advantages.py  rewards of tokens and answers -> how much better than expected each token was
losses.py      what a policy and a critic are differentiated by
objectives.py  the same for an engine: a batch of answers -> LossSum
invariants.py  what must be so at every update, or the run ends

Notation: B answers, T columns of the longest of them. A column stands for the token that is predicted there,
and mask_BT is true where that is a token of the answer, the one that ends it too. Log-probabilities are those
of the tokens that were sampled; a value is that of what was read before the token.
"""
