"""Weights on disk: our own files, and other people's checkpoints brought into their form."""

from swin_umamba.weights.continuing import continuation, continue_weights
from swin_umamba.weights.convert import convert, save_release_checkpoint
from swin_umamba.weights.load import load_pretrained, load_pretrained_encoder
from swin_umamba.weights.reader import read_checkpoint
from swin_umamba.weights.report import Report
from swin_umamba.weights.saved import load_weights, read_config, save_weights

__all__ = [
    "Report",
    "continuation",
    "continue_weights",
    "convert",
    "load_pretrained",
    "load_pretrained_encoder",
    "load_weights",
    "read_checkpoint",
    "read_config",
    "save_release_checkpoint",
    "save_weights",
]
