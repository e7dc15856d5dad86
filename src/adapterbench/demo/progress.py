"""Progress of a generation: a bar, and previews side by side."""

from collections.abc import Sequence

from PIL import Image

from adapterbench.demo.generator import Event, Step
from adapterbench.demo.html import Card, strip
from adapterbench.report.methods import label


class Progress:
    """Counts steps and keeps the latest preview of every image."""

    def __init__(self, reference: Image.Image, methods: Sequence[str], steps: int) -> None:
        self.steps, self.done = steps, 0
        self.prompt = Card("Image prompt", reference, finished=True)
        self.cards = {method: Card(label(method)) for method in methods}
        self.status = "Starting"

    def after(self, event: Event) -> str:
        """Process an event; return the updated HTML."""
        self.take(event)
        return self.html()

    def take(self, event: Event) -> None:
        """Count a step and update its preview, or store a finished image."""
        if isinstance(event, Step):
            title = label(event.method)
            self.done += 1
            self.status = f"{title}: step {self.done % self.steps or self.steps} of {self.steps}"
            if event.preview:
                self.cards[event.method] = Card(title, event.preview)
        else:
            title = label(event.settings.method)
            self.cards[event.settings.method] = Card(title, event.image, finished=True)
            if all(card.finished for card in self.cards.values()):
                self.status = "Done"

    def html(self) -> str:
        """HTML of the bar and the images."""
        total = self.steps * len(self.cards)
        return strip(self.status, self.done, total, [self.prompt, *self.cards.values()])
