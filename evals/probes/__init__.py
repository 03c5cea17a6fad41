"""What an encoder knows, told by heads that are trained on it: with the encoder held still, and with it.

examples.py   words and what is to be said of them; from texts at hand, or from files
encoded.py    the same as rows of pieces
fitting.py    one head, trained with one seed, and what it answers
results.py    all seeds, with intervals: over documents, and over seeds
"""
