"""Files are written atomically, whatever goes wrong."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from swin_umamba.common import partial
from swin_umamba.common.files import file_for_torch, replacing, write_bytes, write_text
from swin_umamba.common.partial import sweep
from swin_umamba.errors import UserError


def test_a_link_stays_one_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(Path("there") / "real.json")
    write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    real.unlink()
    write_text(link, "again")  # a link to a missing target
    assert link.is_symlink()
    assert real.read_text() == "again"
    assert [path.name for path in real.parent.iterdir()] == ["real.json"]


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "a", "x")


def test_devices_are_written_to_and_stay() -> None:
    write_text(Path(os.devnull), "gone")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_fifo_is_written_to_and_stays(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.json"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    write_bytes(fifo, b"x" * 100_000)
    reader.join(30)
    assert read == [b"x" * 100_000]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_stdout_is_added_to_wherever_it_leads(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from swin_umamba.common.files import write_text\n"
        "print('before'); write_text(Path('/dev/stdout'), 'middle\\n'); print('after')"
    )
    with (tmp_path / "out").open("wb") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert (tmp_path / "out").read_text() == "before\nmiddle\nafter\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"before\nmiddle\nafter\n"


def test_names_as_long_as_the_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".png")
    write_text(path, "x")
    assert path.read_text() == "x"
    with pytest.raises(UserError, match="File name too long"):
        write_text(tmp_path / ("x" * 252 + ".png"), "x")
    assert list(tmp_path.iterdir()) == [path]


def test_the_clean_up_hides_no_error(tmp_path: Path) -> None:
    def lose(error: Exception | None) -> None:
        with replacing(tmp_path / "gone" / "x") as path:
            path.unlink()
            path.parent.rmdir()
            (tmp_path / "gone").rmdir()
            if error is not None:
                raise error

    with pytest.raises(ZeroDivisionError):
        lose(ZeroDivisionError())
    with pytest.raises(UserError, match=r"cannot write .*x: No such file"):
        lose(None)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*x\.json: .*the disk is full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_torch_s_writer_tells_of_a_full_disk() -> None:
    with pytest.raises(OSError, match="No space left"), file_for_torch(FULL) as file:
        torch.save({"a": torch.zeros(100_000)}, file)


EXPORT = """
import torch
from pathlib import Path
from swin_umamba.common.files import file_for_torch
program = torch.export.export(torch.nn.Linear(100, 100), (torch.zeros(1, 100),))
try:
    with file_for_torch(Path("/dev/full")) as file:
        torch.export.save(program, file)
except OSError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_an_export_to_a_full_disk_does_not_end_the_process() -> None:
    words = [sys.executable, "-c", EXPORT]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "No space left" in done.stdout


WRITER = """
import sys; from pathlib import Path
from swin_umamba.common.files import replacing
with replacing(Path(sys.argv[1])) as partial:
    (partial.parent / ".tmpAbCdEf").touch()
    partial.write_text("half"); print("ready", flush=True); sys.stdin.read()
"""


def test_what_dead_processes_left_is_swept_and_the_living_go_on(tmp_path: Path) -> None:
    def writer(name: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", WRITER, str(tmp_path / name)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    with writer("alive") as alive, writer("dead") as dead:
        dead.kill()
        dead.wait()
        (tmp_path / f".{dead.pid}.partial.old.npy").touch()
        (tmp_path / f".{alive.pid}.partial.old.npy").touch()
        (tmp_path / ".tmp123abc").touch()
        (tmp_path / ".hidden").touch()
        sweep(tmp_path)
        left = {path.name for path in tmp_path.iterdir()}
        assert left - {f".{alive.pid}.partial.old.npy", ".tmp123abc", ".hidden"} == {
            name for name in left if f"-{alive.pid}-" in name
        }
        assert len(left) == 4
        sweep(tmp_path, alone=True)
        assert not (tmp_path / ".tmp123abc").exists()
        alive.communicate(b"")
        assert alive.returncode == 0
    assert (tmp_path / "alive").read_text() == "half"
    sweep(tmp_path / "nowhere")


def test_whoever_writes_next_sweeps(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WRITER, str(tmp_path / "x")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    assert list(tmp_path.iterdir())
    write_text(tmp_path / "y", "other")
    assert [path.name for path in tmp_path.iterdir()] == ["y"]


def test_what_another_host_writes_stays_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial, "_host", lambda: "00000000")
    with replacing(tmp_path / "x") as path:
        monkeypatch.undo()
        sweep(tmp_path, alone=True)
        assert path.exists()
        os.utime(path.parent, (1.0, 1.0))
        sweep(tmp_path)
        assert not path.exists()
        path.parent.mkdir()
        path.touch()


def test_processes_of_one_number_do_not_collide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with replacing(tmp_path / "x") as one, replacing(tmp_path / "x") as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "x").read_text() == "one"
