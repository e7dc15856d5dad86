"""One captioned picture on its way from a source to a shard."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class RawSample:
    """A picture as its source published it, before it is decoded."""

    key: str
    """Unique name, also the stem of its members in the shard."""
    concept: str
    """What it shows; all pictures of a concept fall on one side of the split."""
    image: bytes
    """An encoded image file (PNG, JPEG, WebP)."""
    captions: tuple[str, ...]
    """Phrasings of its caption; the first is the one that is scored."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Further facts, kept in the sample's `.json`."""
