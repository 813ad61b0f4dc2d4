"""Scoring predictions: `evaluate_folder`, and `compare` for two folders of them."""

from swin_umamba.evaluate.comparison import Difference, compare
from swin_umamba.evaluate.folders import evaluate_cases, evaluate_folder
from swin_umamba.evaluate.scores import METRICS, CaseScores, Scores, score_case
from swin_umamba.evaluate.truth import open_truth, with_instances

__all__ = [
    "METRICS",
    "CaseScores",
    "Difference",
    "Scores",
    "compare",
    "evaluate_cases",
    "evaluate_folder",
    "open_truth",
    "score_case",
    "with_instances",
]
