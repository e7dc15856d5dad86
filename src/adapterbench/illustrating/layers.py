"""Measure which layer of an adapter carries what: single layers on and off, then presets.

All images are made from the image prompt alone, so that nothing else makes them like the reference,
and from the noise that their item has in stage `sample`. Half of the items measure the layers, from
which the presets follow; the other half checks the presets.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from adapterbench.adapters.core.adapter import Adapter
from adapterbench.adapters.core.branch import Branch, DecoupledBranch
from adapterbench.adapters.core.storage import CONFIG, WEIGHTS
from adapterbench.adapters.core.variant import Variant
from adapterbench.core.config import CompareParams, LayersParams, SampleParams, ScoreParams
from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, link_or_copy, publish
from adapterbench.exchange.presets import save_presets
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.shards import read_split
from adapterbench.frozen.load import fingerprint
from adapterbench.illustrating.aspects import AspectScorer
from adapterbench.illustrating.drawing import Sheet, draw_share, pack
from adapterbench.report import layers as tables
from adapterbench.report.layers import ALL, CHECK, LAYERS, OFF, Row, image_tar
from adapterbench.runs.processes import process_state
from adapterbench.runs.resume import exclusive_run, resume_path
from adapterbench.sampling.sampler import ImageId, Sampler, check_backbone
from adapterbench.scoring.evaluator import Folders, load_evaluator

Scales = dict[str, float]
"""lambda by the path of a layer; layers left out get 0."""
Scores = Mapping[str, pd.DataFrame]
"""By setting: a row per item, a column per aspect."""


@dataclass(frozen=True, slots=True)
class Params:
    """Sections of the parameter file."""

    layers: LayersParams
    sample: SampleParams
    score: ScoreParams
    compare: CompareParams


@dataclass(frozen=True, slots=True)
class Inputs:
    """Output folders of other stages, and the row of the adapter."""

    encoded: Path
    shards: Path
    folders: Folders
    adapter: Path
    variant: Variant


def measure(params: Params, inputs: Inputs, presets: Path, out: Path) -> pd.DataFrame:
    """Write the effects and the images of the check into `out`, and the presets to `presets`.

    Processes that `accelerate launch` starts share the images. A killed run resumes: images that
    are already generated are kept.

    Returns:
        The effects (see `report.layers`).

    Raises:
        UserError: an input is missing or does not fit the others, the split has too few items, or
            lambda 0 is not the base model in the layers of this adapter.
    """
    state, identity = process_state(), fingerprint(inputs.folders.backbone)
    check_backbone(inputs.adapter, identity)
    facts = {
        "items": params.layers.items,
        "sample": params.sample,
        "score": params.score,
        "compare": params.compare,
        "variant": inputs.variant.row(),
        "backbone": identity,
    }
    own = inputs.adapter / WEIGHTS, inputs.adapter / CONFIG
    manifests = inputs.encoded / MANIFEST, inputs.shards / MANIFEST
    made = resume_path(f"layers-{inputs.adapter.name}", facts, *manifests, *own)
    with exclusive_run(made, is_main=state.is_main_process):
        table = sweep(params, inputs, made)
        if state.is_main_process:
            with publish(out) as beside:
                shutil.copytree(made / CHECK, beside, copy_function=link_or_copy)
                tables.write(table, beside)
            save_presets(presets, inputs.adapter, *derived(params, table))
            shutil.rmtree(made)
        state.wait_for_everyone()
    return table


def derived(params: Params, table: pd.DataFrame) -> tuple[str, dict[str, Scales]]:
    """How the layers were measured and the presets chosen, in words; and the presets."""
    rows, scale = tables.select(table, LAYERS, "mean"), params.sample.scale
    method = (
        f"Mean effect of each layer, on alone and off alone, on {rows['n'].iloc[0]} images from an "
        f"image prompt alone, lambda {scale:g}. {tables.RULE}"
    )
    chosen = tables.presets(table)
    return method, {name: dict.fromkeys(paths, scale) for name, paths in chosen.items()}


def sweep(params: Params, inputs: Inputs, made: Path) -> pd.DataFrame:
    """Generate and score the images of single layers, then those of the presets; the effects.

    Raises:
        UserError: see `measure`.
    """
    sampler = load_sampler(params, inputs)
    assert sampler.adapter
    paths, scale = sorted(sampler.adapter.layers), params.sample.scale  # down, mid, up
    image_ids = sampler.image_ids()
    keys = {image_id.key for image_id in image_ids}
    items = {s.key: s.image for s in read_split(inputs.shards, "validation", keys=keys)}
    evaluator = params.score.evaluators.neutral
    neutral = load_evaluator(evaluator, inputs.folders, "score.evaluators.neutral")
    scorer = AspectScorer(items, neutral)
    measuring, checking = image_ids[::2], image_ids[1::2]

    settings = layer_settings(paths, scale)
    scores = score(sampler, scorer, settings, measuring, made / LAYERS)
    table = tables.effects(LAYERS, layer_effects(scores, paths), params.compare)

    chosen = tables.presets(table)
    every = {ALL: paths, OFF: [], **chosen}
    settings = {name: dict.fromkeys(layers, scale) for name, layers in every.items()}
    scores = score(sampler, scorer, settings, checking, made / CHECK)
    checked = tables.effects(CHECK, preset_effects(scores, chosen), params.compare)
    return pd.concat([table, checked], ignore_index=True)


def load_sampler(params: Params, inputs: Inputs) -> Sampler:
    """The base model with the adapter, and one image of each item to generate.

    Raises:
        UserError: see `measure`.
    """
    available = len(EncodedSplit(inputs.encoded, "validation"))
    if params.layers.items > available:
        raise UserError(
            f"layers.items = {params.layers.items}, but the validation split has {available}: "
            "lower it"
        )
    one_each = {"items": params.layers.items, "images_per_item": 1}
    sampler = Sampler(
        params.sample.model_copy(update=one_each),
        inputs.encoded,
        inputs.folders.backbone,
        inputs.adapter,
        process_state().device,
        inputs.shards,
        inputs.variant,
    )
    if not (sampler.adapter and is_separable(sampler.adapter)):
        raise UserError(
            f"{inputs.adapter.name}: with attention {inputs.variant.attention!r} a layer of lambda "
            "0 is not that of the base model, so that layers cannot be measured one by one: remove "
            "the variant from layers.variants"
        )
    return sampler


def is_separable(adapter: Adapter) -> bool:
    """Whether lambda 0 in a layer leaves the base model's layer."""
    branches = adapter.layers.values()
    return all(type(it) is Branch or isinstance(it, DecoupledBranch) for it in branches)


def layer_settings(paths: Sequence[str], scale: float) -> dict[str, Scales]:
    """All layers on, all off, and each one on alone and off alone."""
    every = dict.fromkeys(paths, scale)
    return {
        ALL: every,
        OFF: {},
        **{f"alone {path}": {path: scale} for path in paths},
        **{f"without {path}": every | {path: 0.0} for path in paths},
    }


def layer_effects(scores: Scores, paths: Iterable[str]) -> dict[Row, pd.DataFrame]:
    """Paired differences of all layers, and of each by the effects of `report.layers`."""
    on, off = scores[ALL], scores[OFF]
    series = {(ALL, "alone"): on - off}
    for path in paths:
        alone, without = scores[f"alone {path}"] - off, on - scores[f"without {path}"]
        mean = (alone + without) / 2
        series |= {(path, "alone"): alone, (path, "without"): without, (path, "mean"): mean}
    return series


def preset_effects(scores: Scores, presets: Iterable[str]) -> dict[Row, pd.DataFrame]:
    """Paired differences of all layers and of each preset to none."""
    return {(name, "alone"): scores[name] - scores[OFF] for name in (ALL, *presets)}


def score(
    sampler: Sampler,
    scorer: AspectScorer,
    settings: Mapping[str, Scales],
    image_ids: Sequence[ImageId],
    folder: Path,
) -> dict[str, pd.DataFrame]:
    """Generate the images of each setting in `folder`, which all processes share; score them."""
    state, keys = process_state(), [image_id.key for image_id in image_ids]
    sheets = {
        name: Sheet(image_tar(folder, name), image_ids, image_ids, None, scales)
        for name, scales in settings.items()
    }
    draw_share(sampler, list(sheets.values()), state, f"{folder.name}: generate")
    state.wait_for_everyone()
    if state.is_main_process:
        for sheet in sheets.values():
            pack(sheet)
    state.wait_for_everyone()
    named = tqdm(sheets.items(), f"{folder.name}: score", disable=not state.is_main_process)
    return {name: scorer(sheet.tar, keys) for name, sheet in named}
