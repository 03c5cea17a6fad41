"""The BERT family: encoders that see both ways, with their pretraining and fine-tuning heads.

Read config.py, then encoder.py, then tasks.py; sizes.py and initialization.py are keyed by the same names.
"""
