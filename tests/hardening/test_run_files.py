"""Edits of a run's files: read correctly, or refused in one line; never a traceback."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import go, tiny_config

from swin_umamba.common.environment import describe_json
from swin_umamba.data import Plan, Split
from swin_umamba.data.datasets.splits import splits_json
from swin_umamba.errors import UserError
from swin_umamba.runs import Run
from swin_umamba.runs.checkpoints import Checkpoints
from swin_umamba.runs.config import TrainConfig
from swin_umamba.train.network import build_model

FACTOR = int(os.environ.get("HARDENING_FACTOR", "1"))
"""Multiplies the number of edits."""
JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, 10**30, 1.5, -0.0, 1e308, "", "1", "../../x", "a\x00b", "x" * 5000),
    *([], {}, [[]], [1, 2], ["a", None], {"a": {"b": []}}, {"": 1}),
)
RAW = (
    *(b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe", b"\x00" * 100, b"[" * 10_000),
    *(b'{"a":' * 3_000, b'{"schema": 99}', b"NaN", b'{"schema": "x"}', b"1e999", b"9" * 6000),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths at which nested dicts and lists can be edited."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items if isinstance(value, (dict, list)) else ():
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))
        else:
            yield (*path, key)


def edited(value: Any, rng: random.Random) -> Any:
    """A copy with one value replaced, removed, or added."""
    value = copy.deepcopy(value)
    place = rng.choice(list(places(value))) if isinstance(value, (dict, list)) else ()
    if not place:
        return rng.choice(JUNK)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    kind = rng.randrange(3)
    if kind == 0 or isinstance(inner, list):
        inner[place[-1]] = rng.choice(JUNK)
    elif kind == 1:
        del inner[place[-1]]
    else:
        inner[rng.choice(["x", "", "schema", "\ud83d\ude00"])] = rng.choice(JUNK)
    return value


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every file that a run may have."""
    run = tmp_path_factory.mktemp("made") / "run"
    plan = Plan(
        dataset="discs",
        channel_names=("R",),
        files_per_image=1,
        labels={"background": 0, "disc": 1},
        values=(0, 1),
        ignore_label=None,
        file_ending=".png",
        normalization=("zscore",),
        intensities=({"mean": 1, "std": 1, "median": 1, "low": 0, "high": 2},),  # type: ignore
        axis=0,
        spacing=(1.0, 1.0),
        patch_size=(16, 16),
    )
    files = {
        "plan.json": plan.to_json(),
        "splits.json": splits_json([Split(("a", "b"), ("c",))]),
        "environment.json": describe_json(1),
        "postprocessing.json": "{}",
    }
    go(run, tiny_config(iterations=2, ema=0.5), files=files)
    return run


def told(action: Callable[[], object]) -> str:
    """The one-line message of the UserError that an action raises; "" if none."""
    try:
        action()
    except UserError as error:
        message = str(error)
    else:
        return ""
    assert len(message.splitlines()) == 1
    assert message.encode()
    return message


def read_all(run: Path) -> None:
    opened = Run.open(run)
    assert isinstance(opened.config, TrainConfig)
    for part in (opened.plan, opened.split, opened.environment, opened.postprocessing):
        assert part is None or isinstance(part, (Plan, Split, dict))
    for record in opened.log():
        json.dumps(record)


@pytest.mark.parametrize("name", ["config.json", "plan.json", "splits.json", "environment.json"])
def test_edits_of_json_files(made: Path, tmp_path: Path, name: str) -> None:
    content = json.loads((made / name).read_text())
    check(made, tmp_path, lambda rng: json.dumps(edited(content, rng)).encode(), name, 150 * FACTOR)


def test_edits_of_the_log(made: Path, tmp_path: Path) -> None:
    records = [json.loads(line) for line in (made / "log.jsonl").read_text().splitlines()]

    def change(rng: random.Random) -> bytes:
        records_now = [edited(r, rng) if rng.random() < 0.7 else r for r in records]
        return b"".join(json.dumps(record).encode() + b"\n" for record in records_now)

    check(made, tmp_path, change, "log.jsonl", 150 * FACTOR)


def check(
    made: Path, tmp_path: Path, change: Callable[[random.Random], bytes], name: str, count: int
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for path in made.iterdir():
        if path.suffix in (".json", ".jsonl"):
            shutil.copy(path, run)
    rng, refused = random.Random(name), 0
    for content in [*RAW, *(change(rng) for _ in range(count))]:
        (run / name).write_bytes(content)
        message = told(lambda: read_all(run))
        refused += bool(message)
        assert not message or name in message
    assert refused >= len(RAW) // 2


def state_edits(state: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    changed = copy.deepcopy(state)
    part = rng.choice(["", "", "optimizer", "scaler", "files", "model", "groups", "moments"])
    inner: Any = changed
    if part in ("optimizer", "scaler", "files", "model"):
        inner = changed[part]
    elif part == "groups":
        inner = changed["optimizer"]["param_groups"][0]
    elif part == "moments":
        inner = changed["optimizer"]["state"]
        inner = rng.choice([inner, inner[rng.choice(list(inner))]])
    key = rng.choice([*inner, "x", 7])
    kind = rng.randrange(4)
    if kind == 0:
        inner.pop(key, None)
    elif kind == 1:
        inner[key] = rng.choice(JUNK)
    elif kind == 2:
        shapes: list[Any] = [(), (3,), (2, 2), (0,)]
        inner[key] = torch.full(rng.choice(shapes), float("nan"))
    else:
        inner[key] = torch.zeros(1).expand(10**6)
    return changed


@pytest.mark.slow
def test_edits_of_the_state(made: Path, tmp_path: Path) -> None:
    """Resuming from it works, or is refused before anything is written."""
    run = tmp_path / "run"
    shutil.copytree(made, run)
    config = tiny_config(iterations=2, ema=0.5)
    state = torch.load(run / "state.pt", weights_only=True)
    rng, refused = random.Random(3), 0
    for _ in range(30 * FACTOR):
        torch.save(state_edits(state, rng), run / "state.pt")
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        if told(lambda: go(run, config, resume=True)):
            refused += 1
            assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
        shutil.rmtree(run)
        shutil.copytree(made, run)
    assert refused > 12


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + b"x" * 100, b"\x80\x02}.", *RAW])
def test_states_that_are_none(made: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"state\.pt"):
        Checkpoints(tmp_path).load()


def test_a_run_that_is_removed_midway_is_an_error(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def remove(progress: Any) -> None:
        if progress.iteration == 3:
            shutil.rmtree(run)

    with pytest.raises(UserError, match="was removed during the run"):
        go(run, tiny_config(iterations=6), on_progress=remove)


@pytest.mark.parametrize("name", ["swin_umamba", "swin_umamba_d", "swin_umamba_v1"])
def test_options_of_models_are_built_or_refused(name: str) -> None:
    values = (*JUNK, [8], [-8, 8], [0, 0], [8, "a"], [8.5, 8], 10**7, [10**7, 8], "cuda")
    options = ("dims", "depths", "decoder_depths", "patch_size", "d_state", "drop_path_rate")
    rng = random.Random(name)
    refused = 0
    for _ in range(40 * FACTOR):
        chosen = {"dims": [8, 8], "depths": [1, 1], rng.choice(options): rng.choice(values)}
        refused += bool(told(lambda: build(name, chosen)))  # noqa: B023 (called at once)
    assert refused > 20


def build(name: str, options: dict[str, Any]) -> None:
    try:
        config = TrainConfig(model=name, model_options=options)
    except ValueError as error:
        raise UserError(str(error)) from error
    build_model(config, pretrained=False)
