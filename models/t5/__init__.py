"""T5: an encoder and a decoder of text, with relative positions (Raffel et al. 2020).

Read config.py, then model.py; sizes.py and initialization.py are keyed by the same names.
"""
