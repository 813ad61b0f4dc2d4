"""The user's images and masks, and the patches cut from them.

From files to batches: `open_dataset` finds the cases, `make_plan` decides how they are
preprocessed, `make_splits` divides them into folds, and `preprocess` caches them on disk;
`prepare_dataset` does all of this. `PatchSampler` cuts patches, and `PatchLoader` prefetches them
in worker processes. A new image goes through `read_raw`, `Plan.preprocess`, the network,
`Plan.restore` and `write_labels`.
"""

from swin_umamba.data.datasets.dataset import CaseFiles, Dataset, read_case
from swin_umamba.data.datasets.grouping import group_images
from swin_umamba.data.datasets.opening import open_dataset
from swin_umamba.data.datasets.splits import (
    Split,
    make_splits,
    pick_split,
    read_splits,
    write_splits,
)
from swin_umamba.data.io.images import read_image, read_mask
from swin_umamba.data.io.raw import RawImage, RawLabels, classes_of, read_labels, read_raw
from swin_umamba.data.io.writing import mask_ending, write_labels, write_probabilities
from swin_umamba.data.prepare.cache import CachedCases, preprocess
from swin_umamba.data.prepare.fingerprint import Fingerprint, Intensity, take_fingerprint
from swin_umamba.data.prepare.plan import Plan, make_plan
from swin_umamba.data.prepare.prepared import PreparedDataset, prepare_dataset
from swin_umamba.data.prepare.state import Choices
from swin_umamba.data.sampling.augmentation import Augmentation
from swin_umamba.data.sampling.case import Case, normalize
from swin_umamba.data.sampling.loader import PatchLoader
from swin_umamba.data.sampling.patches import PatchSampler

__all__ = [
    "Augmentation",
    "CachedCases",
    "Case",
    "CaseFiles",
    "Choices",
    "Dataset",
    "Fingerprint",
    "Intensity",
    "PatchLoader",
    "PatchSampler",
    "Plan",
    "PreparedDataset",
    "RawImage",
    "RawLabels",
    "Split",
    "classes_of",
    "group_images",
    "make_plan",
    "make_splits",
    "mask_ending",
    "normalize",
    "open_dataset",
    "pick_split",
    "prepare_dataset",
    "preprocess",
    "read_case",
    "read_image",
    "read_labels",
    "read_mask",
    "read_raw",
    "read_splits",
    "take_fingerprint",
    "write_labels",
    "write_probabilities",
    "write_splits",
]
