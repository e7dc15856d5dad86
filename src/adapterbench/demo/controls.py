"""The input components, from and to the settings of an image."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import gradio as gr

from adapterbench.core.errors import UserError
from adapterbench.demo import grid
from adapterbench.demo.inputs import ImageInput, Values
from adapterbench.demo.masks import MaskInput, black_and_white
from adapterbench.demo.prompting import Inputs
from adapterbench.demo.settings import ImagePrompt, InputImage, Settings, parse_settings
from adapterbench.demo.store import ImageStore, StoredImage

NUMBERS = ("layers", "start", "end", "fit", "guidance_scale", "steps", "seed", "base")
"""Settings whose component has their name and value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """A reference image with its scale and mask."""

    image: ImageInput
    mask: MaskInput
    scale: gr.Slider


@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """The input components."""

    slots: Sequence[Slot]
    negative_image: ImageInput
    control: ImageInput | None
    """None: there is no ControlNet."""
    methods: gr.CheckboxGroup
    text: gr.Textbox
    negative_text: gr.Textbox
    layers: gr.Radio
    start: gr.Slider
    end: gr.Slider
    fit: gr.Dropdown
    guidance_scale: gr.Slider
    steps: gr.Slider
    seed: gr.Number
    base: gr.Dropdown
    scales: gr.Textbox
    """Scales of the first image to compare."""
    seeds: gr.Textbox

    @property
    def images(self) -> list[ImageInput]:
        """All inputs of images, in the order of their tabs."""
        control = [self.control] if self.control else []
        return [*(slot.image for slot in self.slots), self.negative_image, *control]

    @property
    def components(self) -> list[Any]:
        """Components whose values are sent."""
        single = [getattr(self, field.name) for field in fields(self)]
        return [
            *(component for component in single if isinstance(component, gr.components.Component)),
            *(part for slot in self.slots for part in (slot.scale, slot.mask.state)),
            *(image.state for image in self.images),
        ]

    @property
    def shown(self) -> list[Any]:
        """The components that `restore` sets."""
        masks = [slot.mask.place for slot in self.slots]
        images = [part for image in self.images for part in (image.place, image.tab)]
        return [*self.components, *masks, *images]

    def settings(self, values: Values) -> Settings:
        """The settings of the inputs, checked.

        Raises:
            UserError: there is no reference image, or a value is not allowed.
        """
        used = [slot for slot in self.slots if values[slot.image.state] is not None]
        if not used:
            raise UserError("There is no image prompt yet: upload an image or pick one")
        images = [
            {
                **named(values[slot.image.state]),
                "scale": values[slot.scale],
                "mask": mask.sha256 if (mask := values[slot.mask.state]) else None,
            }
            for slot in used
        ]
        negative = values[self.negative_image.state]
        control = values[self.control.state] if self.control else None
        return parse_settings(
            method="",
            images=images,
            text=values[self.text] or "",
            negative_text=values[self.negative_text] or "",
            negative_image=negative and named(negative),
            control=control and named(control),
            **{name: values[getattr(self, name)] for name in NUMBERS if name != "seed"},
            seed=values[self.seed] or 0,
        )

    def plan(self, values: Values, known: Sequence[str]) -> list[Settings]:
        """Settings of all images to generate; methods in the order of `known`.

        Raises:
            UserError: no method is selected, or a value is not allowed.
        """
        ticked = values[self.methods]
        methods = [m for m in known if isinstance(ticked, list) and m in ticked]
        if not methods:
            raise UserError("Nothing to compare: tick at least one adapter")
        common = self.settings(values)
        scales = grid.numbers(values[self.scales] or "", "Scales of image 1", float)
        seeds = grid.numbers(values[self.seeds] or "", "Seeds", int)
        return grid.plan(common, methods, scales, seeds)

    def restore(self, settings: Settings) -> Values:
        """Values and updates that set the inputs to the settings of an image."""
        values: Values = {getattr(self, name): getattr(settings, name) for name in NUMBERS}
        values |= {
            self.methods: [settings.method],
            self.text: settings.text,
            self.negative_text: settings.negative_text,
            self.scales: "",
            self.seeds: "",
        }
        images = [*settings.images, *[None] * len(self.slots)]
        for slot, image in zip(self.slots, images, strict=False):
            values |= slot.image.use(stored(image))
            values |= slot.mask.use(mask_of(image) if image else None)
            if image:
                values[slot.scale] = image.scale
        values |= self.negative_image.use(stored(settings.negative_image))
        if self.control:
            values |= self.control.use(stored(settings.control))
        return values


def named(given: StoredImage) -> dict[str, str]:
    """An image's name for the settings."""
    return asdict(given)


def stored(given: InputImage | None) -> StoredImage | None:
    """The image that settings name."""
    return StoredImage(given.caption, given.sha256) if given else None


def mask_of(given: ImagePrompt) -> StoredImage | None:
    """The mask that settings name."""
    return StoredImage(f"mask of {given.caption}", given.mask) if given.mask else None


def inputs(settings: Settings, store: ImageStore) -> Inputs:
    """The images that settings name.

    Raises:
        UserError: one is no longer kept.
    """
    masks = [mask_of(given) for given in settings.images]
    negative, control = stored(settings.negative_image), stored(settings.control)
    return Inputs(
        images=[store.image(StoredImage(given.caption, given.sha256)) for given in settings.images],
        masks=[black_and_white(store.image(mask)) if mask else None for mask in masks],
        negative=store.image(negative) if negative else None,
        control=store.image(control) if control else None,
    )
