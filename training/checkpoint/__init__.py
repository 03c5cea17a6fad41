"""Checkpoints: written by any number of ranks, verified on every read, loadable by any other number.

A step is a directory `checkpoints/step-N/` of safetensors files and a `manifest.json`, which is
written last. Without a valid manifest there is no checkpoint.
"""
