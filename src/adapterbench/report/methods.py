"""The rows of the comparison: which there are, in which order, and what people call them."""

from collections.abc import Callable, Mapping, Sequence

STUDY = {
    "uni_controlnet_global": "Uni-ControlNet (Global)",
    "ip_adapter_mlp_lora": "IP-Adapter MLP LoRA",
    "ip_adapter_lora": "IP-Adapter LoRA",
    "ip_adapter_mlp": "IP-Adapter MLP",
    "ip_adapter": "IP-Adapter",
}
"""The five variants of the original study, in the order of its table."""

SHUFFLED = "shuffled_reference"

BASELINES = {
    "no_prompt": "No prompt",
    "text_only": "Text only",
    SHUFFLED: "Shuffled reference",
    "other_item": "Other item's image",
    "reference_16px": "Reference at 16 px",
    "vae": "VAE reconstruction",
    "reference": "Reference image",
}
"""Floors and ceilings. They take no image prompt (the shuffled one: not the right one), so each
belongs to no protocol and stands in the table of both."""

FLOORS = ("no_prompt", "text_only", SHUFFLED, "other_item")

CEILINGS = ("reference_16px", "vae", "reference")

REAL = ("other_item", *CEILINGS)
"""Baselines that are real images, one an item."""

ORIGINAL = "ip_adapter"
"""The variant the others modify; their differences are given to it where it is present."""


Names = Callable[[str], str]
"""Method -> what people call it."""

DAGGER = "†"
"""Stands behind the name of a variant that was trained otherwise than the others."""


def label(method: str, own: Mapping[str, str] | None = None) -> str:
    """Name of a method for people: its own where the user gave one, else ours, else its key."""
    return {**STUDY, **BASELINES, **(own or {})}.get(method, method)


def in_order(variants: Sequence[str]) -> list[str]:
    """The variants of the original table in its order, then the added ones as they come."""
    known = list(STUDY)
    return sorted(variants, key=lambda v: known.index(v) if v in STUDY else len(known))


def contrasts(variants: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs `(method, baseline)` to compare: each variant with each floor and each variant.

    A pair of variants appears once, and `ip_adapter`, or else the first variant, is the baseline
    of all its pairs.
    """
    original = ORIGINAL if ORIGINAL in variants else variants[0]
    others = [v for v in variants if v != original]
    pairs = [(v, floor) for v in variants for floor in FLOORS]
    pairs += [(v, original) for v in others]
    return pairs + [(b, a) for i, a in enumerate(others) for b in others[i + 1 :]]
