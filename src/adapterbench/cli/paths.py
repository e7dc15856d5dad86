"""Paths of the pipeline's files in a project: defaults of the commands."""

from pathlib import Path

BACKBONE = Path("data/backbone")
BASES = Path("data/bases")
SHARDS = Path("data/shards")
MODELS = Path("models")
SAMPLES = Path("samples")
TRAIN_METRICS = Path("metrics/train")
RESULTS = Path("results")
CONTROLNET = Path("pins/emoji_controlnet")
