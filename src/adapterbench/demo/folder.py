"""Files that the page offers: generated images with their settings, archives; bounded in size."""

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from threading import Lock

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from adapterbench.demo.settings import Settings

CHUNK = "adapterbench"
"""PNG text chunk that holds the settings: `json.loads(Image.open(path).text[CHUNK])`."""
MAX_BYTES = 256 * 2**20
"""Most bytes of all files: about 500 images of 512 x 512 pixels."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A generated image on disk."""

    path: Path
    settings: Settings


class FileFolder:
    """Files of all sessions; the oldest are deleted when the limit is exceeded."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.files = deque[tuple[Path, int]]()
        self.lock = Lock()

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """Yield a path for a file under a random folder; count the file when it is written."""
        path = Path(mkdtemp(dir=self.folder)) / name
        try:
            yield path
        except BaseException:
            path.unlink(missing_ok=True)
            path.parent.rmdir()
            raise
        with self.lock:
            self.files.append((path, path.stat().st_size))
            while sum(size for _, size in self.files) > self.max_bytes and len(self.files) > 1:
                oldest, _ = self.files.popleft()
                oldest.unlink()
                oldest.parent.rmdir()

    def save(self, image: Image.Image, settings: Settings) -> Saved:
        """Write a PNG with its settings in a text chunk."""
        info = PngInfo()
        info.add_text(CHUNK, json.dumps(asdict(settings)))
        with self.new(f"{settings.method}-seed-{settings.seed}.png") as path:
            image.save(path, pnginfo=info)
        return Saved(path, settings)
