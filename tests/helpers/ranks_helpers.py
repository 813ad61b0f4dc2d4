"""Processes that train together, compared with a single process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest
import torch
from ranks_program import CONFIGS, SPOILT, run, run_spoilt
from run_helpers import signalled_at, tiny_config
from safetensors.torch import load_file
from warm import AVAILABLE, Warm

from swin_umamba import create_model
from swin_umamba.runs.folder import read_log
from swin_umamba.weights import save_weights

HERE = Path(__file__).parent


def started(
    *launcher: str, device: str, arguments: list[str | Path], cold: bool = False
) -> subprocess.Popen[str] | Warm:
    """A launcher, by its module and options, that starts a program in its processes.

    On CPUs all of them are forked from one that has imported already, unless `cold`.
    """
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    words = ["-m", *launcher, *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **hidden}
    if device == "cpu" and AVAILABLE and not cold:
        return Warm(words, env)
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
    )


def launched(
    *launchers: tuple[str, ...], device: str, arguments: list[str | Path], cold: bool = False
) -> None:
    """Run a program in several processes, by one launcher or by one on each of two nodes."""
    nodes = [
        started(*launcher, device=device, arguments=arguments, cold=cold) for launcher in launchers
    ]
    try:
        with ThreadPoolExecutor(len(nodes)) as readers:
            told = {readers.submit(node.communicate, timeout=300): node for node in nodes}
            for ended in as_completed(told):
                failed = told[ended].returncode != 0
                if failed:  # the others would wait for it
                    for node in nodes:
                        node.kill()
                assert not failed, ended.result()[0][-3000:]
    finally:
        for node in nodes:
            node.kill()


_PLAIN = ("--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0")


def launcher(by: str, processes: int) -> tuple[str, ...]:
    """The command line that starts processes on one node: torchrun, accelerate or fsdp."""
    if by == "torchrun":
        return ("torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    every = ("accelerate.commands.launch", f"--num_processes={processes}", "--num_machines=1")
    if by == "fsdp":
        return (*every, "--use_fsdp", "--fsdp_version=2", *_PLAIN)
    return (*every, "--multi_gpu", *_PLAIN)  # where there is no GPU, by gloo


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def on_two_nodes(by: str) -> list[tuple[str, ...]]:
    """The command line for two nodes with one process each; both are this host."""
    port = _free_port()
    if by == "torchrun":
        every = ("torch.distributed.run", "--nnodes=2", "--nproc-per-node=1")
        every += ("--master-addr=127.0.0.1", f"--master-port={port}")
        return [(*every, f"--node-rank={rank}") for rank in (0, 1)]
    every = ("accelerate.commands.launch", "--num_processes=2", "--num_machines=2", "--multi_gpu")
    every += ("--main_process_ip=127.0.0.1", f"--main_process_port={port}", *_PLAIN[:2])
    return [(*every, f"--machine_rank={rank}") for rank in (0, 1)]


def trained_together(folder: Path, device: str, by: str = "torchrun", *, nodes: int = 1) -> Path:
    """The folder, in which two processes that a launcher started have trained all CONFIGS."""
    frozen = CONFIGS["frozen"]
    torch.manual_seed(7)
    model = create_model(frozen["model"], in_channels=1, out_channels=2, **frozen["model_options"])
    save_weights(model, folder / "v1.safetensors")
    stop = signalled_at(2, signal.SIGTERM)
    assert run(folder, "dagger", device=device, into="grown", on_progress=stop).stopped
    launched(
        *([launcher(by, 2)] if nodes == 1 else on_two_nodes(by)),
        device=device,
        arguments=_program(folder, device, 2, by),
    )
    return folder


def trained_by(processes: int, folder: Path, device: str, by: str) -> Path:
    """The folder, in which so many processes (not two) have trained the first of CONFIGS."""
    launched(
        launcher(by, processes),
        device=device,
        arguments=_program(folder, device, processes, by),
    )
    return folder


def _program(folder: Path, device: str, processes: int, by: str) -> list[str | Path]:
    sharded = ["fsdp"] if by == "fsdp" else []
    return [HERE / "ranks_program.py", folder, device, str(processes), *sharded]


def assert_as_alone(together: Path, folder: Path, name: str, device: str) -> None:
    """The run of that name equals that of a single process in `folder`, up to rounding."""
    if "pretrained" in CONFIGS[name]:
        (folder / "v1.safetensors").symlink_to(together / "v1.safetensors")
    alone = run(folder, name, device=device)
    records = read_log(together / name)
    assert len(records) == len(alone.records) == 6
    for ours, theirs in zip(records, alone.records, strict=True):
        # Six steps of float32, whose sums over a batch are taken in another order.
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["gradient"] == pytest.approx(theirs["gradient"], rel=1e-4)
        assert ours["lr"] == theirs["lr"]
        assert ours.get("dsc") == pytest.approx(theirs.get("dsc"), abs=0.01)
    first, second = (load_file(f / name / "model.safetensors") for f in (together, folder))
    torch.manual_seed(tiny_config().seed)
    start = create_model(
        tiny_config(**CONFIGS[name]).model,
        in_channels=1,
        out_channels=2,
        pretrained=together / "v1.safetensors" if "pretrained" in CONFIGS[name] else None,
        **CONFIGS[name]["model_options"],
    ).state_dict()
    apart = sum((first[k] - second[k]).square().sum() for k in first).sqrt()
    moved = sum((start[k] - second[k]).square().sum() for k in first).sqrt()
    assert moved > 0
    assert apart < 1e-3 * moved


def assert_same_losses(a: Path, b: Path) -> None:
    """Equal up to rounding."""
    ours, theirs = read_log(a), read_log(b)
    assert len(ours) == len(theirs) == 6
    for first, second in zip(ours, theirs, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)


def assert_goes_on_alone(together: Path, device: str) -> None:
    assert len(read_log(together / "handed_over")) == 2
    run(together, "dagger", device=device, into="handed_over", resume=True)
    assert_same_losses(together / "handed_over", together / "dagger")


def assert_went_back_as_alone(together: Path, folder: Path, device: str) -> None:
    """Non-finite steps were skipped, and undone, as by a single process in `folder`."""
    run_spoilt(folder, device)
    ours, theirs = read_log(together / "spoilt"), read_log(folder / "spoilt")
    told = f"the output of {SPOILT} was not finite at iteration 5, for the 2th time in a row"
    assert [record.get("returned") for record in theirs] == [None, None, None, told, None, None]
    assert [record.get("returned") for record in ours] == [r.get("returned") for r in theirs]
    assert [record["lr"] for record in ours] == [record["lr"] for record in theirs]
    assert_same_losses(together / "spoilt", folder / "spoilt")
