"""Progress of a generation: a bar, and previews side by side."""

from collections.abc import Sequence
from itertools import groupby

from PIL import Image

from adapterbench.demo.generator import TEXT_ONLY, Event, Step
from adapterbench.demo.html import Block, Card, strip
from adapterbench.demo.settings import Settings
from adapterbench.report.methods import label

NBSP = "\N{NO-BREAK SPACE}"


class Progress:
    """Counts steps and keeps the latest preview of every image."""

    def __init__(self, prompts: Sequence[tuple[str, Image.Image]], images: Sequence[Settings]):
        """Args: the given images with their titles, and the settings of those to be made."""
        self.images, self.done, self.status = images, 0, "Starting"
        self.prompts = [Card(title, image, finished=True) for title, image in prompts]
        self.varied = len(images) > len({image.method for image in images})
        """Whether there are several images of a method."""
        self.cards = [Card(self.title(image)) for image in images]

    def title(self, image: Settings) -> str:
        """Caption of an image: its method, or what varies within a method."""
        if not self.varied:
            return label(image.method)
        seed = f"seed{NBSP}{image.seed}"
        if image.method == TEXT_ONLY:
            return seed
        return f"scale{NBSP}{image.images[0].scale:g}, {seed}"

    def after(self, event: Event) -> str:
        """Process an event; return the updated HTML."""
        self.take(event)
        return self.html()

    def take(self, event: Event) -> None:
        """Count a step and update its preview, or store a finished image."""
        image, title = self.images[event.number], self.cards[event.number].title
        if isinstance(event, Step):
            self.done += 1
            step = self.done % image.steps or image.steps
            of_all = f" ({event.number + 1} of {len(self.images)} images)" if self.varied else ""
            self.status = f"{label(image.method)}: step {step} of {image.steps}{of_all}"
            if event.preview:
                self.cards[event.number] = Card(title, event.preview)
        else:
            self.cards[event.number] = Card(title, event.image, finished=True)
            if all(card.finished for card in self.cards):
                self.status = "Done"

    def html(self) -> str:
        """HTML of the bar and the images."""
        total = sum(image.steps for image in self.images)
        return strip(self.status, self.done, total, self.blocks())

    def blocks(self) -> list[Block]:
        """All side by side; with several images of a method, a block of rows for each method."""
        if not self.varied:
            return [Block([*self.prompts, *self.cards])]
        scales = len({image.images[0].scale for image in self.images})
        rows = [
            Block(
                [self.cards[number] for number, _ in group],
                label(method),
                scales if scales > 1 and method != TEXT_ONLY else None,
            )
            for method, group in groupby(enumerate(self.images), key=lambda pair: pair[1].method)
        ]
        return [Block(self.prompts), *rows]
