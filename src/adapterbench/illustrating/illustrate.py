"""An adapter's pictures with other texts, on other base models and at other scales.

A picture's noise is that of its item in stage `sample`: the same whatever the method, the base
model and the scale.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

from more_itertools import chunked

from adapterbench.adapters.core.storage import CONFIG, WEIGHTS
from adapterbench.adapters.core.variant import Variant
from adapterbench.core.config import IllustrateParams, SampleParams, ScoreParams
from adapterbench.core.files import MANIFEST, link_or_copy, publish
from adapterbench.formats.generated import Illustrations
from adapterbench.formats.pairs import list_path, write_pairs
from adapterbench.frozen.load import fingerprint
from adapterbench.illustrating.drawing import Sheet, draw_batch, draw_share, embedded, pack
from adapterbench.illustrating.pairs import find_pairs, pair_sheets
from adapterbench.illustrating.scores import score
from adapterbench.runs.processes import processes, share
from adapterbench.runs.resume import alone, resume_path
from adapterbench.sampling.sampler import ImageId, Sampler
from adapterbench.scoring.evaluator import Folders

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Folders that other stages leave."""

    encoded: Path
    shards: Path
    backbone: Path
    bases: Path
    """`<base>/` in diffusers layout."""
    adapter: Path | None
    """None: the base models alone, given texts."""
    variant: Variant | None = None
    """Row of the adapter; None: see `Sampler`."""


def illustrate(
    params: IllustrateParams,
    sample: SampleParams,
    scoring: ScoreParams,
    inputs: Inputs,
    folders: Folders,
    out: Path,
) -> int:
    """Write `out` as `Illustrations` has it, with the scores; return the number of images.

    Processes that `accelerate launch` starts share the images. A killed run keeps those it has
    drawn and goes on with the others.

    Raises:
        UserError: an input is missing or does not fit.
    """
    state = processes()
    bases = {base.name: fingerprint(base) for base in find_bases(inputs)}
    facts = {
        "illustrate": params,
        "sample": sample,
        "variant": inputs.variant.row() if inputs.variant else None,
        "backbone": fingerprint(inputs.backbone),
        "bases": bases,
    }
    own = [inputs.adapter / WEIGHTS, inputs.adapter / CONFIG] if inputs.adapter else []
    manifests = inputs.encoded / MANIFEST, inputs.shards / MANIFEST
    made = resume_path(f"illustrate-{out.name}", facts, *manifests, *own)
    with alone(made, leads=state.is_main_process):
        count = draw(params, sample, inputs, made)
        score(scoring, folders, inputs.shards, made)
        if state.is_main_process:
            with publish(out) as beside:
                shutil.copytree(made, beside, copy_function=link_or_copy)
            shutil.rmtree(made)
        state.wait_for_everyone()
    return count


def find_bases(inputs: Inputs) -> list[Path]:
    """Folders of the other base models, sorted."""
    return sorted(inputs.bases.iterdir())


def draw(params: IllustrateParams, sample: SampleParams, inputs: Inputs, out: Path) -> int:
    """Fill the folder `out`, which all processes share; return the number of images.

    Raises:
        UserError: an input is missing or does not fit.
    """
    state, to = processes(), Illustrations(out)

    def on(base: Path) -> Sampler:
        where = inputs.adapter, state.device, inputs.shards, inputs.variant
        return Sampler(sample, inputs.encoded, base, *where)

    sampler = on(inputs.backbone)
    chosen = mentioning([prompt.image for prompt in params.prompts], sampler)
    pairs = find_pairs(sampler, inputs.shards, params.pairs)
    sheets = [
        prompt_sheet(params, sampler, chosen, to.prompts),
        *(sweep_sheets(params, sampler, to) if inputs.adapter else []),
        *pair_sheets(sampler, pairs, to.pairs),
    ]
    draw_share(sampler, sheets, state)
    once = list(dict.fromkeys(chosen))
    # a process draws all that belongs to a base, so that no two load it
    on_bases = [
        Sheet(to.base(base.name), once, once, None, sample.scale) for base in find_bases(inputs)
    ]
    for base, sheet in share(list(zip(find_bases(inputs), on_bases, strict=True)), state):
        draw_on_base(on, base, sheet, inputs)
    state.wait_for_everyone()
    if state.is_main_process:
        for sheet in (*sheets, *on_bases):
            pack(sheet)
        for protocol, listed in pairs.items():
            write_pairs(list_path(to.pairs, protocol), listed)
    state.wait_for_everyone()
    return sum(len(sheet.names) for sheet in (*sheets, *on_bases))


def draw_on_base(on: Callable[[Path], Sampler], base: Path, sheet: Sheet, inputs: Inputs) -> None:
    """Draw a sheet on another base model, unless its tar is there.

    An adapter answers the image prompt alone, a base model without one the caption.
    """
    if sheet.tar.exists():
        return
    sampler = on(base)
    texts = None if inputs.adapter else sampler.captions(list(sheet.prompts))
    for batch in chunked(range(len(sheet.names)), sampler.params.batch_size):
        draw_batch(sampler, replace(sheet, texts=texts), batch)


def prompt_sheet(
    params: IllustrateParams, sampler: Sampler, chosen: Sequence[ImageId], tar: Path
) -> Sheet:
    """Image prompts with other texts."""
    texts = embedded([prompt.text for prompt in params.prompts], sampler)
    names = [replace(image_id, k=number) for number, image_id in enumerate(chosen)]
    return Sheet(tar, names, chosen, texts, sampler.params.scale)


def sweep_sheets(params: IllustrateParams, sampler: Sampler, to: Illustrations) -> list[Sheet]:
    """Each item's caption, pulled by each scale towards the next item's image prompt."""
    own = items(sampler)[: params.sweep_items]
    numbers = [image_id.number for image_id in own]
    both = [
        replace(image_id, number=other)
        for image_id, other in zip(own, [*numbers[1:], numbers[0]], strict=True)
    ]
    texts = sampler.captions(own)
    return [Sheet(to.scale(scale), own, both, texts, scale) for scale in params.scales]


def items(sampler: Sampler) -> list[ImageId]:
    """The first picture of every sampled item."""
    return [image_id for image_id in sampler.image_ids() if image_id.k == 0]


def mentioning(words: Sequence[str], sampler: Sampler) -> list[ImageId]:
    """For each word the first item whose caption has it, or else some item."""
    image_ids = items(sampler)
    captions = [sampler.data.samples[p.number]["captions"][0] for p in image_ids]
    said = [set(caption.replace(",", " ").split()) for caption in captions]
    if unheard := sorted(set(words).difference(*said)):
        log.warning("no item's caption has %s: other items take the place", ", ".join(unheard))
    return [
        next((p for p, caption in zip(image_ids, said, strict=True) if word in caption), some)
        for word, some in zip(words, cycle(image_ids), strict=False)
    ]
