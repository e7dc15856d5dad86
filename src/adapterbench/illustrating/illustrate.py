"""Generate an adapter's images with other texts, on other base models and at other scales.

An image's noise is that of its item in stage `sample`: the same for every method, base model and
scale.
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
from adapterbench.runs.processes import process_state, share
from adapterbench.runs.resume import exclusive_run, resume_path
from adapterbench.sampling.sampler import ImageId, Sampler
from adapterbench.scoring.evaluator import Evaluator, Folders, load_evaluator

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Output folders of other stages, and the row of the adapter."""

    encoded: Path
    shards: Path
    backbone: Path
    bases: Path
    """`<base>/` in diffusers layout."""
    adapter: Path | None
    """None: the base models alone, from text prompts."""
    variant: Variant | None = None
    """Row of the adapter; None: the variant stored with it."""


def illustrate(
    params: IllustrateParams,
    sample: SampleParams,
    scoring: ScoreParams,
    inputs: Inputs,
    folders: Folders,
    out: Path,
) -> int:
    """Write the folder `out` in the layout of `Illustrations`, with scores; return the image count.

    Processes that `accelerate launch` starts share the images. A killed run resumes: images that
    are already generated are kept.

    Raises:
        UserError: an input is missing or does not fit the others.
    """
    state = process_state()
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
    with exclusive_run(made, is_main=state.is_main_process):
        neutral = load_evaluator(scoring.evaluators.neutral, folders, "score.evaluators.neutral")
        count = draw(params, sample, inputs, neutral, made)
        score(scoring, folders, neutral, inputs.shards, made)
        if state.is_main_process:
            with publish(out) as beside:
                shutil.copytree(made, beside, copy_function=link_or_copy)
            shutil.rmtree(made)
        state.wait_for_everyone()
    return count


def find_bases(inputs: Inputs) -> list[Path]:
    """Folders of the additional base models, sorted."""
    return sorted(inputs.bases.iterdir())


def draw(
    params: IllustrateParams,
    sample: SampleParams,
    inputs: Inputs,
    neutral: Evaluator,
    out: Path,
) -> int:
    """Generate all images into `out`, which all processes share; return the number of images.

    Raises:
        UserError: an input is missing or does not fit the others.
    """
    state, layout = process_state(), Illustrations(out)

    def sampler_over(base: Path) -> Sampler:
        adapter = inputs.adapter, state.device, inputs.shards, inputs.variant
        return Sampler(sample, inputs.encoded, base, *adapter)

    sampler = sampler_over(inputs.backbone)
    chosen = mentioning([prompt.image for prompt in params.prompts], sampler)
    pairs = find_pairs(sampler, inputs.shards, params.pairs, neutral, params.twin_cosine)
    sheets = [
        prompt_sheet(params, sampler, chosen, layout.prompts),
        *(sweep_sheets(params, sampler, layout) if inputs.adapter else []),
        *pair_sheets(sampler, pairs, layout.pairs),
    ]
    draw_share(sampler, sheets, state)
    distinct = list(dict.fromkeys(chosen))
    # one process draws all images of a base, so that it is loaded once
    on_bases = [
        Sheet(layout.base(base.name), distinct, distinct, None, sample.scale)
        for base in find_bases(inputs)
    ]
    for base, sheet in share(list(zip(find_bases(inputs), on_bases, strict=True)), state):
        draw_on_base(sampler_over, base, sheet, inputs)
    state.wait_for_everyone()
    if state.is_main_process:
        for sheet in (*sheets, *on_bases):
            pack(sheet)
        for protocol, listed in pairs.items():
            write_pairs(list_path(layout.pairs, protocol), listed)
    state.wait_for_everyone()
    return sum(len(sheet.names) for sheet in (*sheets, *on_bases))


def draw_on_base(
    sampler_over: Callable[[Path], Sampler], base: Path, sheet: Sheet, inputs: Inputs
) -> None:
    """Generate a sheet on another base model, unless its tar exists.

    With an adapter from the image prompt alone, without one from the caption.
    """
    if sheet.tar.exists():
        return
    sampler = sampler_over(base)
    texts = None if inputs.adapter else sampler.captions(list(sheet.prompts))
    for batch in chunked(range(len(sheet.names)), sampler.params.batch_size):
        draw_batch(sampler, replace(sheet, texts=texts), batch)


def prompt_sheet(
    params: IllustrateParams, sampler: Sampler, chosen: Sequence[ImageId], tar: Path
) -> Sheet:
    """The sheet of image prompts combined with other texts."""
    texts = embedded([prompt.text for prompt in params.prompts], sampler)
    names = [replace(image_id, k=number) for number, image_id in enumerate(chosen)]
    return Sheet(tar, names, chosen, texts, sampler.params.scale)


def sweep_sheets(params: IllustrateParams, sampler: Sampler, layout: Illustrations) -> list[Sheet]:
    """One sheet per scale: each item's caption combined with the next item's image prompt."""
    image_ids = items(sampler)[: params.sweep_items]
    numbers = [image_id.number for image_id in image_ids]
    prompts = [
        replace(image_id, number=other)
        for image_id, other in zip(image_ids, [*numbers[1:], numbers[0]], strict=True)
    ]
    texts = sampler.captions(image_ids)
    return [Sheet(layout.scale(scale), image_ids, prompts, texts, scale) for scale in params.scales]


def items(sampler: Sampler) -> list[ImageId]:
    """The first image of every sampled item."""
    return [image_id for image_id in sampler.image_ids() if image_id.k == 0]


def mentioning(words: Sequence[str], sampler: Sampler) -> list[ImageId]:
    """For each word, the first item whose caption contains it; if none does, some other item."""
    image_ids = items(sampler)
    captions = [sampler.data.samples[p.number]["captions"][0] for p in image_ids]
    caption_words = [set(caption.replace(",", " ").split()) for caption in captions]
    if missing := sorted(set(words).difference(*caption_words)):
        log.warning("no caption contains %s: other items are used instead", ", ".join(missing))
    return [
        next(
            (p for p, caption in zip(image_ids, caption_words, strict=True) if word in caption),
            fallback,
        )
        for word, fallback in zip(words, cycle(image_ids), strict=False)
    ]
