"""Generated images on disk, each with its settings; the total size is bounded."""

import json
from collections import deque
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from threading import Lock

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from adapterbench.demo.settings import Settings

CHUNK = "adapterbench"
"""PNG text chunk that holds the settings: `json.loads(Image.open(path).text[CHUNK])`."""
MAX_BYTES = 256 * 2**20
"""Most bytes of all images: about 500 images of 512 x 512 pixels."""


class ImageFolder:
    """Images of all sessions; the oldest are deleted when the limit is exceeded."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.files = deque[tuple[Path, int]]()
        self.lock = Lock()

    def save(self, image: Image.Image, settings: Settings) -> Path:
        """Write a PNG with its settings in a text chunk, under a random path."""
        name = f"{settings.method}-seed-{settings.seed}.png"
        path = Path(mkdtemp(dir=self.folder)) / name
        info = PngInfo()
        info.add_text(CHUNK, json.dumps(asdict(settings)))
        image.save(path, pnginfo=info)
        with self.lock:
            self.files.append((path, path.stat().st_size))
            while sum(size for _, size in self.files) > self.max_bytes and len(self.files) > 1:
                oldest, _ = self.files.popleft()
                oldest.unlink()
                oldest.parent.rmdir()
        return path
