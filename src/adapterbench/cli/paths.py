"""Where the pipeline leaves things in a project: what commands read and write by default."""

from importlib.resources import files
from pathlib import Path

BACKBONE = Path("data/backbone")
BASES = Path("data/bases")
SHARDS = Path("data/shards")
MODELS = Path("models")
TRAIN_METRICS = Path("metrics/train")
RESULTS = Path("results")
CONTROLNET = Path("pins/emoji_controlnet")


def conf_folder() -> Path:
    """The project's `conf/`; outside a project, the one that comes with the package."""
    own = Path("conf")
    return own if (own / "config.yaml").is_file() else Path(str(files("adapterbench") / "conf"))
