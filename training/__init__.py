"""Configuration, the training loop, engines, checkpoints, launching and supervising."""
