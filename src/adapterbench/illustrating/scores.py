"""Scores of the illustrations that have a reference: the scale sweep and the pairs."""

from pathlib import Path

from adapterbench.core.config import ScoreParams
from adapterbench.formats.generated import Illustrations
from adapterbench.illustrating.pairs import score_pairs
from adapterbench.scoring.evaluator import Evaluator, Folders
from adapterbench.scoring.scores import load_scorer, score_samples


def score(
    params: ScoreParams, folders: Folders, neutral: Evaluator, shards: Path, folder: Path
) -> None:
    """Write the scores of the sweep and of the pairs into `folder`, if it has any of them.

    Raises:
        UserError: an image is damaged, or the CLIP that scores cannot be loaded.
    """
    layout = Illustrations(folder)
    if layout.sweep.exists():
        scorer = load_scorer(params, folders, shards, layout.sweep, neutral=False)
        score_samples(scorer, layout.sweep, layout.sweep_scores)
    if layout.pairs.exists():
        score_pairs(neutral, shards, layout.pairs, layout.pairs_scores)
