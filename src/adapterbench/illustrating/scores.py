"""Scores of those illustrations that have something to be held against."""

from pathlib import Path

from adapterbench.core.config import ScoreParams
from adapterbench.formats.generated import Illustrations
from adapterbench.illustrating.pairs import score_pairs
from adapterbench.scoring.evaluator import Folders, load_evaluator
from adapterbench.scoring.scores import load_scorer, score_samples


def score(params: ScoreParams, folders: Folders, shards: Path, folder: Path) -> None:
    """Write the scores of the sweep and of the pairs in `folder` beside them, where there are any.

    Raises:
        UserError: an image is damaged, or an evaluator cannot be loaded.
    """
    drawn = Illustrations(folder)
    if drawn.sweep.exists():
        scorer = load_scorer(params, folders, shards, drawn.sweep, neutral=False)
        score_samples(scorer, drawn.sweep, drawn.sweep_scores)
    if drawn.pairs.exists():
        neutral = params.evaluators.neutral
        evaluator = load_evaluator(neutral, folders, "score.evaluators.neutral")
        score_pairs(evaluator, shards, drawn.pairs, drawn.pairs_scores)
