"""Scores of those illustrations that have something to be held against."""

from pathlib import Path

from adapterbench.core.config import ScoreParams
from adapterbench.illustrating.pairs import score_pairs
from adapterbench.illustrating.pictures import PAIRS, PAIRS_SCORES, SWEEP, SWEEP_SCORES
from adapterbench.scoring.evaluator import Folders, load_evaluator
from adapterbench.scoring.scores import load_scorer, score_samples


def score(params: ScoreParams, folders: Folders, shards: Path, folder: Path) -> None:
    """Write the scores of the sweep and of the pairs in `folder` beside them, where there are any.

    Raises:
        UserError: an image is damaged, or an evaluator cannot be loaded.
    """
    if (folder / SWEEP).exists():
        scorer = load_scorer(params, folders, shards, folder / SWEEP, neutral=False)
        score_samples(scorer, folder / SWEEP, folder / SWEEP_SCORES)
    if (folder / PAIRS).exists():
        neutral = params.evaluators.neutral
        evaluator = load_evaluator(neutral, folders, "score.evaluators.neutral")
        score_pairs(evaluator, shards, folder / PAIRS, folder / PAIRS_SCORES)
