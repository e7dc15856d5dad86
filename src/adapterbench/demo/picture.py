"""A picture with the settings that make it again, in the page and in its PNG file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp

from PIL import Image
from PIL.PngImagePlugin import PngInfo

CHUNK = "adapterbench"
"""PNG text chunk that holds the settings: `json.loads(Image.open(path).text[CHUNK])`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything that a picture depends on, besides the weights."""

    method: str
    """Folder of the adapter in models/, or `text_only`."""
    base: str
    """Name of the base model."""
    image_prompt: str
    """Caption of the picture, or its file's name."""
    text: str
    negative_text: str
    control: str | None
    """File name of the control image."""
    scale: float
    """Weight of the image prompt (lambda)."""
    guidance_scale: float
    steps: int
    """DPM-Solver++ steps."""
    seed: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished picture."""

    image: Image.Image
    settings: Settings

    def save(self, folder: Path) -> Path:
        """Write it as a PNG that holds its settings into a new folder below `folder`."""
        name = f"{self.settings.method}-seed-{self.settings.seed}.png"
        path = Path(mkdtemp(dir=folder)) / name
        info = PngInfo()
        info.add_text(CHUNK, json.dumps(asdict(self.settings)))
        self.image.save(path, pnginfo=info)
        return path
