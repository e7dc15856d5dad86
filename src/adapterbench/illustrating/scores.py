"""Scores of those illustrations that have something to be held against."""

from pathlib import Path

from adapterbench.core.config import ScoreParams
from adapterbench.illustrating.pairs import score_pairs
from adapterbench.illustrating.pictures import PAIRS, PAIRS_SCORES, SWEEP, SWEEP_SCORES
from adapterbench.scoring.evaluator import load_evaluator
from adapterbench.scoring.scores import load_scorer, score_samples


def score(params: ScoreParams, shards: Path, folder: Path) -> None:
    """Write the scores of the sweep and of the pairs in `folder` beside them, where there are any.

    Raises:
        UserError: an image is damaged, or an evaluator cannot be loaded.
    """
    if (folder / SWEEP).exists():
        scorer = load_scorer(params, shards, folder / SWEEP, neutral=False)
        score_samples(scorer, folder / SWEEP, folder / SWEEP_SCORES)
    if (folder / PAIRS).exists():
        evaluator = load_evaluator(params.evaluators.neutral, "score.evaluators.neutral")
        score_pairs(evaluator, shards, folder / PAIRS, folder / PAIRS_SCORES)
