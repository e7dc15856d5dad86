"""Where the pipeline leaves things in a project: what commands read and write by default."""

from pathlib import Path

BACKBONE = Path("data/backbone")
BASES = Path("data/bases")
SHARDS = Path("data/shards")
MODELS = Path("models")
TRAIN_METRICS = Path("metrics/train")
RESULTS = Path("results")
CONTROLNET = Path("pins/emoji_controlnet")
CONF = Path("conf")
