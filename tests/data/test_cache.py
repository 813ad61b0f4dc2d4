"""Preprocessed cases on disk, and the worker processes that read them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from data_helpers import blob, noise, write_bare, write_nnunet, write_pixels

from swin_umamba.data import (
    CachedCases,
    Dataset,
    PatchLoader,
    PatchSampler,
    Plan,
    make_plan,
    open_dataset,
    preprocess,
    read_case,
)
from swin_umamba.data.prepare.mapped import MappedArray, save_array
from swin_umamba.errors import UserError

SHAPE = (3, 20, 24)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three volumes of three slices."""
    return open_dataset(write_nnunet(tmp_path / "Dataset007_Box", shape=SHAPE, ending=".nii.gz"))


@pytest.fixture
def plan(dataset: Dataset) -> Plan:
    return make_plan(dataset)


def _sampler(cases: CachedCases, seed: int = 0) -> PatchSampler:
    return PatchSampler(cases, patch_size=(16, 16), batch_size=3, seed=seed)


def _written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize("threads", [1, 3])
def test_cached_cases_are_the_preprocessed_slices(
    dataset: Dataset, plan: Plan, tmp_path: Path, threads: int
) -> None:
    told = []
    cases = preprocess(
        dataset,
        plan,
        ["case_2", "case_0"],
        tmp_path / "cache",
        threads=threads,
        on_progress=lambda done, of: told.append((done, of)),
    )
    assert told == [(1, 2), (2, 2)]
    assert len(cases) == 6
    assert [case.volume for case in cases] == ["case_2"] * 3 + ["case_0"] * 3
    assert cases[4].name == "case_0, slice 1"
    assert [case.name for case in cases[1:-4]] == ["case_2, slice 1"]
    assert cases[-1].name == "case_0, slice 2"
    raw, classes = read_case(dataset.case("case_0"), channels=1, values=(0, 1))
    assert classes is not None
    for i, case in enumerate(cases[3:]):
        assert case.mask.dtype == np.int64
        np.testing.assert_array_equal(case.image, plan.preprocess(raw)[i])
        np.testing.assert_array_equal(case.mask, classes[i])


def test_2d_cases_have_the_datasets_names(tmp_path: Path) -> None:
    dataset = open_dataset(write_bare(tmp_path / "data"))
    cases = preprocess(dataset, make_plan(dataset), folder=tmp_path / "cache")
    assert [case.name for case in cases] == ["scan_a", "scan_b", "scan_c"]
    np.testing.assert_array_equal(cases[0].mask, blob((20, 24)))


def test_the_cache_is_used_again(dataset: Dataset, plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    preprocess(dataset, plan, folder=folder)
    before = _written(folder)
    assert len(before) == 9
    preprocess(dataset, replace(plan, patch_size=(32, 32), dataset="renamed"), folder=folder)
    preprocess(dataset, plan, ["case_1"], folder)
    assert _written(folder) == before


def test_the_cache_lies_where_caches_lie(
    dataset: Dataset, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "home"))
    preprocess(dataset, plan)
    assert len(_written(tmp_path / "home" / "preprocessed" / "Dataset007_Box")) == 9


def test_stale_caches_are_never_used(dataset: Dataset, plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    image, mask = dataset.cases[0].images[0], dataset.cases[0].mask
    assert mask is not None
    preprocess(dataset, plan, folder=folder)
    times = image.stat()
    write_pixels(image, noise(SHAPE, seed=99))
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    raw, _ = read_case(dataset.cases[0], channels=1, values=(0, 1))
    fresh = preprocess(dataset, plan, folder=folder)
    np.testing.assert_array_equal(fresh[0].image, plan.preprocess(raw)[0])

    write_pixels(mask, np.ones(SHAPE, np.uint8))
    assert preprocess(dataset, plan, folder=folder)[0].mask.all()

    plain = replace(plan, normalization=("none",))
    np.testing.assert_array_equal(
        preprocess(dataset, plain, folder=folder)[0].image[0], noise(SHAPE, seed=99)[0]
    )
    turned = preprocess(dataset, replace(plan, axis=2), folder=folder)
    assert turned[0].image.shape == (1, 3, 20)
    facts = replace(plan.intensities[0], high=plan.intensities[0].high / 2)
    ct = replace(plan, normalization=("ct",))
    darker = replace(ct, intensities=(facts,))
    found = [preprocess(dataset, p, folder=folder)[0].image for p in (ct, darker)]
    assert found[0].max() > found[1].max()


@pytest.mark.parametrize("part", ["image", "mask", "positions"])
@pytest.mark.parametrize("share", [None, 0.0, 0.5, 0.99])
def test_damaged_caches_are_made_anew(
    dataset: Dataset, plan: Plan, tmp_path: Path, part: str, share: float | None
) -> None:
    folder = tmp_path / "cache"
    preprocess(dataset, plan, ["case_1"], folder)
    (path,) = folder.glob(f"*.{part}.npy")
    whole = path.read_bytes()
    if share is None:
        path.unlink()
    else:
        path.write_bytes(whole[: int(share * len(whole))])
    cases = preprocess(dataset, plan, ["case_1"], folder)
    assert path.read_bytes() == whole
    assert len(cases) == 3


def test_what_is_wrong_with_a_case_is_told(dataset: Dataset, plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(UserError, match="has no case 'case_9'"):
        preprocess(dataset, plan, ["case_9"], folder)
    unlabelled = replace(dataset.cases[0], mask=None)
    with pytest.raises(UserError, match=r"case_0_0000\.nii\.gz has no mask"):
        preprocess(replace(dataset, cases=(unlabelled,)), plan, folder=folder)
    assert not folder.exists()
    mask = dataset.cases[1].mask
    assert mask is not None
    write_pixels(mask, blob(SHAPE, 5))
    for threads in (1, 3):
        with pytest.raises(UserError, match=r"labelsTr/case_1\.nii\.gz holds the label 5"):
            preprocess(dataset, plan, folder=folder, threads=threads)
    mask.unlink()
    with pytest.raises(UserError, match=r"cannot read .*labelsTr/case_1\.nii\.gz"):
        preprocess(dataset, plan, folder=folder)


def test_folders_that_cannot_be_written_to(dataset: Dataset, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot make the folder .*file/cache"):
        preprocess(dataset, plan, folder=tmp_path / "file" / "cache")
    if os.getuid() != 0:
        (tmp_path / "cache").mkdir(mode=0o500)
        with pytest.raises(UserError, match=r"cannot write .*cache.*Permission denied"):
            preprocess(dataset, plan, folder=tmp_path / "cache")


@pytest.mark.slow
def test_full_disks(dataset: Dataset, tmp_path: Path) -> None:
    """A limit on file sizes stands in for a full disk."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from swin_umamba.data import make_plan, open_dataset, preprocess\n"
        "from swin_umamba.errors import UserError\n"
        "dataset = open_dataset(sys.argv[1]); plan = make_plan(dataset)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "try: preprocess(dataset, plan, folder=Path(sys.argv[2]))\n"
        "except UserError as error: print(error)\n"
    )
    folder = tmp_path / "cache"
    done = subprocess.run(
        [sys.executable, "-c", code, str(dataset.folder), str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"cannot write {folder}/case_0-")
    assert "File too large" in done.stdout
    assert list(folder.iterdir()) == []


@pytest.fixture
def cases(dataset: Dataset, plan: Plan, tmp_path: Path) -> CachedCases:
    return preprocess(dataset, plan, folder=tmp_path / "cache")


def test_cached_and_plain_cases_give_the_same_batches(cases: CachedCases) -> None:
    plain = PatchSampler(list(cases), patch_size=(16, 16), batch_size=3)
    for index in range(5):
        for ours, theirs in zip(_sampler(cases).batch(index), plain.batch(index), strict=True):
            assert torch.equal(ours, theirs)


def test_cached_cases_pickle_without_their_content(cases: CachedCases) -> None:
    sampler = _sampler(cases)
    expected = sampler.batch(3)
    packed = pickle.dumps(sampler)
    assert len(packed) < 5000
    for ours, theirs in zip(pickle.loads(packed).batch(3), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_come_in_the_order_of_their_index(cases: CachedCases, workers: int) -> None:
    sampler = _sampler(cases)
    with PatchLoader(sampler, workers=workers, start=5, stop=12) as loader:
        loaded = list(loader)
    assert len(loaded) == 7
    for index, batch in enumerate(loaded, start=5):
        for ours, theirs in zip(batch, sampler.batch(index), strict=True):
            assert torch.equal(ours, theirs)
    with PatchLoader(sampler, workers=workers) as endless:
        assert torch.equal(next(endless)[0], sampler.batch(0)[0])
    with pytest.raises(StopIteration):
        next(endless)
    assert not multiprocessing.active_children()
    with pytest.raises(ValueError, match="workers: got -1"):
        PatchLoader(sampler, workers=-1)


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_of_workers_come_in_one_line(cases: CachedCases, workers: int) -> None:
    packed = pickle.dumps(_sampler(cases))
    for volume in cases.volumes:
        volume.path("image").write_bytes(b"")
        volume.path("mask").write_bytes(b"")
    fresh: PatchSampler = pickle.loads(packed)
    with (
        PatchLoader(fresh, workers=workers) as loader,
        pytest.raises(UserError, match=r"(mask|image)\.npy cannot be read") as caught,
    ):
        next(loader)
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("part", ["image", "mask", "positions"])
def test_files_cut_while_they_are_mapped_are_an_error(cases: CachedCases, part: str) -> None:
    """Accessing them would kill the process by SIGBUS."""
    volume = cases.volumes[0]
    read = {
        "image": lambda: volume.image(0),
        "mask": lambda: volume.mask(0),
        "positions": volume.positions,
    }[part]
    read()
    path = volume.path(part)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(UserError, match=rf"{part}\.npy cannot be read: it has \d+ bytes, expected"):
        read()


def test_killed_workers_are_told(cases: CachedCases) -> None:
    with PatchLoader(_sampler(cases), workers=1) as loader:
        next(loader)
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        # What had been written before still exists.
        with pytest.raises(UserError, match="a process that prepares batches failed") as caught:
            list(loader)
        assert "\n" not in str(caught.value)


class _Faulty(PatchSampler):
    def batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        raise RuntimeError("a fault of the program")


def test_faults_of_the_program_keep_their_traceback(cases: CachedCases) -> None:
    faulty = _Faulty(cases, patch_size=(16, 16), batch_size=3)
    with (
        PatchLoader(faulty, workers=1) as loader,
        pytest.raises(RuntimeError, match=r"(?s)test_cache\.py.*a fault of the program"),
    ):
        next(loader)


def test_headers_are_parsed_by_one_thread_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11's parser, which NumPy uses for them, fails otherwise."""
    save_array(tmp_path / "array.npy", np.arange(6.0))
    parse = np.lib.format.read_array_header_1_0
    at_once, most = 0, 0

    def watched(file: BinaryIO) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.01)
        at_once -= 1
        return parse(file)

    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", watched)
    with ThreadPoolExecutor(4) as pool:
        arrays = list(pool.map(MappedArray, [tmp_path / "array.npy"] * 8))
    assert most == 1
    assert all(each.array[5] == 5 for each in arrays)
