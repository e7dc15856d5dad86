"""Images of a finalist: prompts with a right answer, items chosen by seed, and the worst items."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from adapterbench.core.config import Count, SampleParams, ScoreParams, Section
from adapterbench.core.files import publish
from adapterbench.formats.frames import read_frame
from adapterbench.formats.generated import Generated, Illustrations, write_images
from adapterbench.formats.image import to_png
from adapterbench.formats.pairs import list_path, write_pairs
from adapterbench.formats.shards import read_split
from adapterbench.illustrating.drawing import Sheet, draw_share, pack
from adapterbench.illustrating.pairs import find_pairs, pair_sheets, score_pairs
from adapterbench.runs.processes import process_state
from adapterbench.sampling.sampler import ImageId, Sampler
from adapterbench.scoring.evaluator import Folders, load_evaluator
from adapterbench.study.runs.files import CHOSEN, REFERENCES, SCORES, WORST, Data, items_of

SPLIT = "validation"


class ExamplesParams(Section):
    """Which images of a finalist are kept."""

    pairs: Count
    """Prompt pairs of each protocol; see `IllustrateParams`."""
    twin_cosine: Annotated[float, Field(gt=0, le=1)] | None
    """See `IllustrateParams`."""
    shown: Count
    """Items chosen by seed, and items with the lowest scores."""


@dataclass(frozen=True, slots=True)
class Finalist:
    """A run whose adapter was kept."""

    adapter: Path
    """Folder of the adapter."""
    scores: Path
    """Folder of the run."""


def make_examples(
    params: ExamplesParams,
    sampling: SampleParams,
    scoring: ScoreParams,
    data: Data,
    finalist: Finalist | None,
    out: Path,
) -> None:
    """Write the pairs with their scores (layout: `Illustrations`); of an adapter also its images.

    `CHOSEN` holds the first items of the run, `WORST` those with the lowest scores, `REFERENCES`
    all real images that the report shows.

    Args:
        finalist: None: the base model alone, which has pairs only.

    Raises:
        UserError: an input is missing or does not fit the others.
    """
    state = process_state()
    folders = Folders(data.backbone, data.neutral_evaluator)
    neutral = load_evaluator(scoring.evaluators.neutral, folders, "score.evaluators.neutral")
    items = items_of(sampling, data, SPLIT)
    adapter = finalist.adapter if finalist else None
    sampler = Sampler(items, data.encoded, data.backbone, adapter)
    pairs = find_pairs(sampler, data.shards, params.pairs, neutral, params.twin_cosine)
    with publish(out) as beside:
        layout = Illustrations(beside)
        sheets = list(pair_sheets(sampler, pairs, layout.pairs))
        if finalist:
            first = [image_id for image_id in sampler.image_ids() if image_id.k == 0]
            for name, shown in {
                CHOSEN: first[: params.shown],
                WORST: worst(first, finalist.scores)[: params.shown],
            }.items():
                sheets.append(Sheet(beside / name, shown, shown, None, sampling.scale))
        draw_share(sampler, sheets, state, out.name)
        for sheet in sheets:
            pack(sheet)
        for protocol, listed in pairs.items():
            write_pairs(list_path(layout.pairs, protocol), listed)
        if finalist:
            keys = {name.key for sheet in sheets for name in sheet.names}
            keys |= {pair.goal for listed in pairs.values() for pair in listed}
            write_references(data.shards, keys, beside / REFERENCES)
        score_pairs(neutral, data.shards, layout.pairs, layout.pairs_scores)


def write_references(shards: Path, keys: set[str], path: Path) -> None:
    """Write the real images of these keys, so that the report needs no other data."""
    real = sorted(read_split(shards, SPLIT, keys=keys), key=lambda sample: sample.key)
    write_images(path, (Generated(sample.key, 0, to_png(sample.image)) for sample in real))


def worst(image_ids: list[ImageId], run: Path) -> list[ImageId]:
    """The items in the order of their mean neutral cosine, lowest first."""
    means = read_frame(run / SCORES, ["key", "neutral"]).groupby("key")["neutral"].mean()
    return sorted(image_ids, key=lambda image_id: (means[image_id.key], image_id.key))
