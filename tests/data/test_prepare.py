"""Preparing a dataset: checks, folds, plan and cache, once for any number of processes."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_helpers import blob, noise, write_bare, write_nnunet, write_pixels
from PIL import Image
from typer.testing import CliRunner

from swin_umamba.cli import app
from swin_umamba.data.prepare import prepared, work
from swin_umamba.data.prepare.batch_size import propose_batch_size
from swin_umamba.data.prepare.prepared import (
    cached_cases,
    prepare_dataset,
    preparing,
    remove_prepared,
)
from swin_umamba.data.prepare.state import Choices, State
from swin_umamba.errors import CombinedUserError, UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six cases of two patients, of one class."""
    folder = write_nnunet(tmp_path / "data", cases=6)
    for path in [*(folder / "imagesTr").iterdir(), *(folder / "labelsTr").iterdir()]:
        patient = "ab"[int(path.name[5]) % 2]
        path.rename(path.with_name(f"{patient}{path.name[4:]}"))
    return folder


def _files(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.suffix == ".npy"}


def test_all_is_ready_on_disk(data: Path, cache: Path) -> None:
    told: list[tuple[str, int, int]] = []
    found = prepare_dataset(data, on_progress=lambda *seen: told.append(seen))
    assert found.folder == cache / "preprocessed" / "data"
    assert len(_files(found.folder)) == 18
    assert [volume.name for volume in found.cases.volumes] == [
        f"{'ab'[i % 2]}_{i}" for i in (0, 2, 4, 1, 3, 5)
    ]
    assert told == [(what, n, 6) for what in ("Checking", "Preprocessing") for n in range(1, 7)]
    assert found.counts["a_0"] == (0, 20 * 24 - blob((20, 24)).sum(), blob((20, 24)).sum())
    assert len(found.splits) == 5


def test_nothing_is_read_twice(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare_dataset(data)
    before = _files(first.folder)

    def unexpected(*args: object, **options: object) -> None:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(work, "read_facts", unexpected)
        patch.setattr("swin_umamba.data.prepare.digests._digest", unexpected)
        again = prepare_dataset(data, fold=1)
        assert (again.plan, again.counts) == (first.plan, first.counts)
        assert {v.name for v in again.cases.volumes} == {*again.split.train, *again.split.val}
        assert len(cached_cases(again.dataset, first.plan, ["a_0"])) == 1
    assert _files(first.folder) == before


def test_a_changed_case_is_read_again(data: Path) -> None:
    first = prepare_dataset(data)
    image = data / "imagesTr" / "a_0_0000.png"
    write_pixels(image, noise((20, 24), 99))
    again = prepare_dataset(data)
    assert not np.array_equal(first.cases[0].image, again.cases[0].image)
    assert len(_files(first.folder)) == 21
    write_pixels(data / "labelsTr" / "a_0.png", blob((20, 24)) * 3)
    with pytest.raises(UserError, match=r"a_0\.png holds the label 3"):
        prepare_dataset(data)


def test_the_plan_is_of_the_training_cases_alone(data: Path, tmp_path: Path) -> None:
    """One case is much larger; it counts only if some fold trains on it."""
    for part, name in (("imagesTr", "b_5_0000.png"), ("labelsTr", "b_5.png")):
        write_pixels(data / part / name, np.full((400, 400), int(part == "labelsTr"), np.uint8))
    write_pixels(data / "imagesTr" / "b_5_0000.png", np.full((400, 400), 255, np.uint8))
    splits = tmp_path / "splits.json"
    names = ["a_0", "a_2", "a_4", "b_1", "b_3"]
    splits.write_text(json.dumps([{"train": names, "val": ["b_5"]}]))
    alone = prepare_dataset(data, Choices(splits=str(splits)))
    every = prepare_dataset(data, Choices())
    assert alone.plan.intensities[0].mean < 200 < every.plan.intensities[0].high
    assert alone.plan.intensities != every.plan.intensities


def test_choices_hold_for_later_calls(data: Path, tmp_path: Path) -> None:
    first = prepare_dataset(data, changes={"folds": 2, "patch_size": (96, 96)})
    assert (len(first.splits), first.plan.patch_size) == (2, (96, 96))
    # Only those of `swin-umamba prepare`, not those of a training.
    plain = prepare_dataset(data)
    assert (len(plain.splits), plain.plan.patch_size) == (5, (64, 64))
    kept = prepare_dataset(data, Choices(group_by="(.)_", patch_size=(64, 96)), keep=True)
    assert [len(split.val) for split in kept.splits] == [3, 3]
    assert kept.plan.patch_size == (64, 96)
    later = prepare_dataset(data, fold=1)
    assert (later.splits, later.plan) == (kept.splits, kept.plan)
    other = prepare_dataset(data, changes={"patch_size": (32, 32)})
    assert (other.splits, other.plan.patch_size) == (kept.splits, (32, 32))
    assert prepare_dataset(data).plan == kept.plan
    # A dataset of the same name elsewhere has its own.
    elsewhere = write_nnunet(tmp_path / "elsewhere" / "data", cases=5)
    assert len(prepare_dataset(elsewhere).splits) == 5
    remove_prepared(data)
    assert len(prepare_dataset(data).splits) == 5


def test_every_problem_is_listed(data: Path) -> None:
    write_pixels(data / "labelsTr" / "a_0.png", blob((20, 25)))
    write_pixels(data / "labelsTr" / "b_1.png", blob((20, 24), 7))
    (data / "imagesTr" / "b_3_0000.png").write_bytes(b"x")
    with pytest.raises(CombinedUserError) as caught:
        prepare_dataset(data)
    assert caught.value.head.startswith("3 problems in ")
    for message, words in zip(
        caught.value.messages,
        ("a_0.png is 20x25", "b_1.png holds the label 7", "b_3_0000.png"),
        strict=True,
    ):
        assert words in message
    done = CliRunner().invoke(app, ["prepare", str(data)])
    assert done.exit_code == 1
    lines = done.stderr.strip().splitlines()
    assert [line[:2] for line in lines[-3:]] == ["- "] * 3
    assert "Traceback" not in done.output


def test_instances_are_checked_too(data: Path) -> None:
    write_pixels(data / "instancesTr" / "a_0.png", np.ones((9, 9), np.uint8))
    with pytest.raises(UserError, match=r"instancesTr/a_0\.png is 9x9"):
        prepare_dataset(data)


LABELS = {"background": 0, "blob": 1, "never": 2, "ignore": 3}


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "all 6 masks are 0 everywhere"), (3, "every pixel of every mask is ignored")],
)
def test_nothing_to_learn_is_an_error(data: Path, value: int, words: str) -> None:
    write_nnunet(data, cases=0, labels=LABELS)
    for path in (data / "labelsTr").iterdir():
        write_pixels(path, np.full((20, 24), value, np.uint8))
    with pytest.raises(UserError, match=words):
        prepare_dataset(data)
    partly = np.zeros((20, 24), np.uint8)
    partly[0] = 3
    for path in (data / "labelsTr").iterdir():
        write_pixels(path, partly)
    with pytest.raises(UserError, match="0 everywhere or ignored: nothing to learn"):
        prepare_dataset(data)


def test_a_class_without_a_pixel_is_a_warning(data: Path) -> None:
    write_nnunet(data, cases=0, labels=LABELS)
    said, _ = prepare_dataset(data).warnings
    assert said == "class 'never' (2) has no pixel in any mask: it cannot be learned"


def test_classes_that_a_fold_lacks_are_warnings(data: Path) -> None:
    write_nnunet(data, cases=0, labels=LABELS)
    write_pixels(data / "labelsTr" / "a_0.png", blob((20, 24), 2))
    found = prepare_dataset(data)
    (fold,) = [i for i, split in enumerate(found.splits) if "a_0" in split.val]
    others = ", ".join(str(i) for i in range(5) if i != fold)
    assert tuple(said for said in found.warnings if "never" in said) == (
        f"class 'never' (2) has no pixel in the training cases of fold {fold}: it cannot be"
        " learned there",
        f"class 'never' (2) has no pixel in the validation cases of folds {others}: it is not"
        " scored there",
    )
    other = prepare_dataset(data, fold=(fold + 1) % 5)
    assert sum("never" in said for said in other.warnings) == 1


def test_a_fold_without_foreground_is_an_error(data: Path, tmp_path: Path) -> None:
    for name in ("a_0", "a_2"):
        write_pixels(data / "labelsTr" / f"{name}.png", np.zeros((20, 24), np.uint8))
    splits = tmp_path / "s.json"
    splits.write_text(
        json.dumps(
            [
                {"train": ["a_0", "a_2"], "val": ["b_1"]},
                {"train": ["b_1", "a_2"], "val": ["a_0"]},
            ]
        )
    )
    choices = Choices(splits=str(splits))
    with pytest.raises(UserError, match="fold 0: the masks of its 2 training cases are 0"):
        prepare_dataset(data, choices)
    assert prepare_dataset(data, choices, fold=1).cases


def test_splits_that_name_unknown_cases(data: Path, tmp_path: Path) -> None:
    splits = tmp_path / "s.json"
    splits.write_text(json.dumps([{"train": ["a_0", "x"], "val": ["y"]}]))
    with pytest.raises(UserError, match="2 problems") as caught:
        prepare_dataset(data, Choices(splits=str(splits)))
    assert "fold 0 names the case 'x'" in str(caught.value)
    splits.write_text(json.dumps([{"train": ["a_0"], "val": ["a_2"]}]))
    with pytest.raises(UserError, match="trains and validates on cases of the group 'a'"):
        prepare_dataset(data, Choices(splits=str(splits), group_by="(.)_"))


def test_leaks_are_warnings(tmp_path: Path) -> None:
    folder = write_bare(tmp_path / "data", cases=0)
    for clip in "pq":
        for frame in range(4):
            name = f"clip{clip}_{frame:03d}.png"
            write_pixels(folder / "images" / name, noise((20, 24, 3), seed=frame + 10 * ord(clip)))
            write_pixels(folder / "masks" / name, blob((20, 24)))
    (said,) = prepare_dataset(folder).warnings
    assert "frames of 2 clips or patients, as 'clipp_000' and 'clipp_001'" in said
    assert prepare_dataset(folder, Choices(group_by="(.*)_")).warnings == ()
    assert prepare_dataset(folder, fold=0, changes={"folds": 2}).warnings == (said,)


def test_the_same_image_twice_is_a_warning(tmp_path: Path) -> None:
    folder = write_bare(tmp_path / "data", cases=2)
    (folder / "images" / "x.png").write_bytes((folder / "images" / "scan_a.png").read_bytes())
    write_pixels(folder / "masks" / "x.png", blob((20, 24), 255))
    (said,) = prepare_dataset(folder).warnings
    assert "the images of 'scan_a' and 'x' are identical" in said


def test_one_case_is_enough_for_fold_all(tmp_path: Path) -> None:
    folder = write_bare(tmp_path / "data", cases=1)
    found = prepare_dataset(folder)
    assert found.splits == ()
    assert found.split.train == found.split.val == ("scan_a",)
    assert not found.split.held_out
    with pytest.raises(UserError, match=r"got 1 labeled case, .*fold 'all'"):
        prepare_dataset(folder, fold=0)


def test_fewer_cases_than_folds(tmp_path: Path) -> None:
    folder = write_bare(tmp_path / "data", cases=3)
    assert len(prepare_dataset(folder).splits) == 3
    with pytest.raises(UserError, match="fold: got 4, expected 0 to 2"):
        prepare_dataset(folder, fold=4)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", "a\x00b", ""])
def test_case_names_are_no_paths(data: Path, name: str) -> None:
    files = {"images": ["imagesTr/a_0_0000.png"], "label": "labelsTr/a_0.png"}
    write_nnunet(data, cases=0, dataset={name: files})
    with pytest.raises(UserError, match=r"dataset\.json: the case name"):
        prepare_dataset(data)


def test_case_names_that_some_systems_take_for_one(data: Path) -> None:
    files = {"images": ["imagesTr/a_0_0000.png"], "label": "labelsTr/a_0.png"}
    write_nnunet(data, cases=0, dataset={"Case": files, "case": files})
    with pytest.raises(UserError, match="'Case' and 'case' are the same"):
        prepare_dataset(data)


@pytest.mark.parametrize("length", [205, 230, 250])
def test_long_names(tmp_path: Path, length: int) -> None:
    folder, names = tmp_path / "data", ["x" * length, "医" * (length // 3)]
    for name in names:
        write_pixels(folder / "images" / f"{name}.png", noise((20, 24, 3), len(name)))
        write_pixels(folder / "masks" / f"{name}.png", blob((20, 24)))
    found = prepare_dataset(folder)
    assert [volume.name for volume in found.cases.volumes] == sorted(names)
    assert len(found.cases) == 2


def test_errors_clean_nothing(data: Path, cache: Path, tmp_path: Path) -> None:
    """A folder that was mistyped, or an option, removed what was cached before it was an error."""
    prepare_dataset(data)
    before = sorted(path.name for path in cache.rglob("*.npy"))
    assert before
    for words, message in (
        ((tmp_path / "elsewhere" / data.name,), "no folder at"),
        ((data, "--folds", "1"), "folds: got 1, expected at least 2"),
        ((data, "--groups", tmp_path / "none.csv"), "none.csv cannot be read"),
        (
            (data, "--preview", tmp_path / "cases.jpg"),
            f"--preview: got {tmp_path / 'cases.jpg'}, expected a name that ends",
        ),
    ):
        done = CliRunner().invoke(app, ["prepare", *map(str, words), "--clean"])
        assert done.exit_code == 1
        assert message in " ".join(done.stderr.split())
    assert sorted(path.name for path in cache.rglob("*.npy")) == before


def test_a_damaged_state_is_told_and_cleaned(data: Path, cache: Path) -> None:
    prepare_dataset(data, Choices(folds=3), keep=True)
    (state,) = (cache / "preprocessed" / "data").glob("prepared-*.json")
    state.write_text("{")
    with pytest.raises(UserError, match=r"prepared-.*swin-umamba prepare --clean"):
        prepare_dataset(data)
    assert CliRunner().invoke(app, ["prepare", str(data), "--clean"]).exit_code == 0
    assert len(prepare_dataset(data).splits) == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("counts", {}), ("counts", {"x": [1]}), ("plans", None), ("signature", 3)),
        *(("choices", {"folds": 0}), ("digests", {"x": [[1, 2], "a"]}), ("new", 1)),
    ],
)
def test_edited_states_are_told(data: Path, cache: Path, field: str, value: object) -> None:
    prepare_dataset(data)
    (state,) = (cache / "preprocessed" / "data").glob("prepared-*.json")
    state.write_text(json.dumps({**json.loads(state.read_text()), field: value}))
    with pytest.raises(UserError, match="prepare --clean starts over"):
        prepare_dataset(data)


def test_an_edited_plan_is_told(data: Path, cache: Path) -> None:
    prepare_dataset(data)
    (state,) = (cache / "preprocessed" / "data").glob("prepared-*.json")
    facts = json.loads(state.read_text())
    (plan,) = facts["plans"].values()
    plan["axis"] = 7
    state.write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"plan .* is damaged .*axis"):
        prepare_dataset(data)


def test_choices_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="group_by"):
        Choices(groups="g.csv", group_by="x")
    with pytest.raises(ValueError, match="folds"):
        Choices(splits="s.json", folds=3)
    with pytest.raises(ValueError, match="folds"):
        Choices(folds=1)


def test_others_wait_for_the_one_that_prepares(data: Path, cache: Path) -> None:
    """However long it takes; afterwards they find everything done."""
    folder = cache / "preprocessed" / "data"
    told: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        with preparing(folder):
            waiting = [
                pool.submit(prepare_dataset, data, on_progress=lambda what, *_: told.append(what))
                for _ in range(2)
            ]
            while len(told) < 2:
                time.sleep(0.05)
            assert told == ["Waiting for another process that prepares this dataset"] * 2
            assert not _files(folder)
        found = [future.result() for future in waiting]
    assert [len(each.cases) for each in found] == [6, 6]
    assert len(_files(folder)) == 18
    # One of them did the work.
    assert told.count("Checking") == 6


def test_batch_sizes() -> None:
    assert propose_batch_size((320, 320), 1e9, None) == 2
    # 16 GB hold 12.8e9 - 1.1e9 bytes of 3,700 a pixel.
    assert propose_batch_size((512, 512), 1e9, 16_000_000_000) == 11
    assert propose_batch_size((512, 512), 1e9, 2_000_000_000) == 2
    assert propose_batch_size((320, 320), 1e9, 140_000_000_000) == 30
    # A twentieth of the dataset at most.
    assert propose_batch_size((320, 320), 100 * 320 * 320, 140_000_000_000) == 5


def test_the_batch_size_is_of_the_machine_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_nnunet(tmp_path / "data", cases=12, shape=(200, 200))
    elsewhere = prepare_dataset(data, Choices(patch_size=(32, 32)), keep=True)
    assert elsewhere.plan.batch_size == 2
    monkeypatch.setattr(work, "gpu_memory", lambda: 140_000_000_000)
    here = prepare_dataset(data)
    assert here.plan == replace(elsewhere.plan, batch_size=int(0.05 * 12 * 200 * 200 / 32**2))


def test_the_command_tells_what_it_did(data: Path, cache: Path, tmp_path: Path) -> None:
    groups = tmp_path / "groups.csv"
    groups.write_text("".join(f"{'ab'[i % 2]}_{i},{'ab'[i % 2]}\n" for i in range(6)))
    done = CliRunner().invoke(
        app, ["prepare", str(data), "--groups", str(groups), "--gpu-memory", "16"]
    )
    assert done.exit_code == 0, done.output
    for words in (
        "2, with 3, 3 validation cases",
        "grey (zscore)",
        "blob: 25.00% of the pixels, in 6 cases",
        "preprocessed/data, 0.0 MB",
    ):
        assert words in done.stdout.replace("\n", ""), done.stdout
    with Image.open(cache / "preprocessed" / "data" / "preview.png") as picture:
        assert picture.size[0] > 512
    assert [len(split.val) for split in prepare_dataset(data).splits] == [3, 3]


def test_the_preview_shows_labels_over_the_image(tmp_path: Path) -> None:
    from swin_umamba.data.prepare.preview import save_preview

    folder = write_bare(tmp_path / "data", cases=8)
    for path in (folder / "images").iterdir():
        write_pixels(path, np.arange(20 * 24 * 3, dtype=np.uint8).reshape(20, 24, 3) // 4)
    found = prepare_dataset(folder)
    save_preview(tmp_path / "some.png", found.cases.volumes)
    save_preview(tmp_path / "one.png", found.cases.volumes[:1])
    with Image.open(tmp_path / "some.png") as some, Image.open(tmp_path / "one.png") as one:
        assert some.size[1] > 2 * one.size[1]
        pixels = np.asarray(one.convert("RGB")).astype(int)
    tile = pixels[8 + 16 : -8, 8:-8]
    left, right = tile[:, : tile.shape[1] // 2], tile[:, tile.shape[1] // 2 :]
    differs = np.abs(left - right).max(2) > 0
    middle = (slice(tile.shape[0] // 4 + 4, 3 * tile.shape[0] // 4 - 4),)
    assert differs[middle].mean() > 0.4
    assert not differs[:8].any()


def test_plans_of_a_run_are_kept(data: Path) -> None:
    """A given plan takes precedence over the dataset's own."""
    found = prepare_dataset(data)
    plain = replace(found.plan, normalization=("none",), crop_to_nonzero=False)
    (case,) = cached_cases(found.dataset, plain, ["b_1"])
    np.testing.assert_array_equal(case.image[0], noise((20, 24), seed=10))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_cache_that_takes_no_files_is_read(data: Path) -> None:
    first = prepare_dataset(data)
    first.folder.chmod(0o500)
    try:
        assert prepare_dataset(data, fold=0).plan == first.plan
    finally:
        first.folder.chmod(0o700)


def test_a_read_only_cache_is_not_locked(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, also as root."""
    first = prepare_dataset(data)
    monkeypatch.setattr(prepared, "_takes_files", lambda folder: False)

    def unexpected(*args: object, **options: object) -> None:
        raise AssertionError("written to")

    monkeypatch.setattr(prepared, "locked", unexpected)
    monkeypatch.setattr(State, "save", unexpected)
    assert prepare_dataset(data, changes={"patch_size": (32, 32)}, fold=0).plan != first.plan


def test_the_state_is_written_only_when_it_changes(data: Path, cache: Path) -> None:
    prepare_dataset(data)
    (state,) = (cache / "preprocessed" / "data").glob("prepared-*.json")
    before = state.stat().st_mtime_ns
    prepare_dataset(data, fold=1)
    assert state.stat().st_mtime_ns == before


def test_what_a_killed_process_left_is_swept(data: Path, cache: Path) -> None:
    folder = prepare_dataset(data).folder
    (folder / f".{2**22 + 1}.partial.x.npy").write_bytes(b"x")
    prepare_dataset(data)
    assert not list(folder.glob("*partial*"))
