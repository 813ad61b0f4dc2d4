"""Scoring predictions: `evaluate_folder`, and `compare` for two folders of them."""

from swin_umamba.evaluate.comparison import Difference, compare
from swin_umamba.evaluate.folders import evaluate_folder
from swin_umamba.evaluate.scores import CaseScores, Scores, score_case

__all__ = ["CaseScores", "Difference", "Scores", "compare", "evaluate_folder", "score_case"]
