"""Scores of the illustrations that have a reference: the scale sweep and the pairs."""

from pathlib import Path

from adapterbench.core.config import ScoreParams
from adapterbench.formats.generated import Illustrations
from adapterbench.illustrating.pairs import score_pairs
from adapterbench.scoring.evaluator import Folders, load_evaluator
from adapterbench.scoring.scores import load_scorer, score_samples


def score(params: ScoreParams, folders: Folders, shards: Path, folder: Path) -> None:
    """Write the scores of the sweep and of the pairs into `folder`, if it has any of them.

    Raises:
        UserError: an image is damaged, or an evaluator cannot be loaded.
    """
    layout = Illustrations(folder)
    if layout.sweep.exists():
        scorer = load_scorer(params, folders, shards, layout.sweep, neutral=False)
        score_samples(scorer, layout.sweep, layout.sweep_scores)
    if layout.pairs.exists():
        neutral = params.evaluators.neutral
        evaluator = load_evaluator(neutral, folders, "score.evaluators.neutral")
        score_pairs(evaluator, shards, layout.pairs, layout.pairs_scores)
