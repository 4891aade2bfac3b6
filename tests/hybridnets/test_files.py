"""Files are whole or absent."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hybridnets.errors import HnxError
from hybridnets.files import (
    atomic_directory,
    atomic_path,
    read_json,
    remove_leftovers,
    sha256_file,
    temporary_directory,
    write_json,
    written_under,
)


def test_json_round_trip_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.json"
    write_json(path, {"ä": [1, 2.5, None]})
    assert read_json(path) == {"ä": [1, 2.5, None]}
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    with atomic_directory(path) as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_directory(path) as temporary:
        (temporary / "a").write_text("2")
        raise RuntimeError
    assert (path / "a").read_text() == "1"
    with atomic_directory(path) as temporary:
        (temporary / "b").write_text("3")
    assert [p.name for p in path.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [path]


def test_kill_leaves_no_half_file(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from hybridnets.files import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as t:\n"
        "    t.write_text('half'); print('ready', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "a.txt"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    assert not path.exists()


def test_a_full_disk_is_told_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(HnxError, match="the disk is full"):
        write_json(tmp_path / "a.json", 1)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HnxError, match="Cannot write"):
        write_json(tmp_path / "file" / "a.json", 1)


@pytest.mark.parametrize("text", ["", "{", "[" * 100000, "\xff"])
def test_bad_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(HnxError, match="not valid JSON"):
        read_json(path)
    with pytest.raises(HnxError, match="more than"):
        read_json(tmp_path / "a.json", limit=-1)


def test_missing(tmp_path: Path) -> None:
    for call in (read_json, sha256_file):
        with pytest.raises(HnxError, match="does not exist"):
            call(tmp_path / "absent")


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256_file(path).startswith("ba7816bf8f01cfea414140de5dae2223")


KILLED = """
import pathlib, sys
from hybridnets.files import atomic_directory, atomic_path
with (atomic_directory if sys.argv[2] == "folder" else atomic_path)(pathlib.Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_leftovers_go_when_their_writer_is_dead(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.b"
    command = [sys.executable, "-c", KILLED, str(path), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        (leftover,) = tmp_path.iterdir()
        os.utime(leftover, (1e9, 1e9))
        remove_leftovers(path)
        assert leftover.exists()  # its writer lives and holds the lock
        child.kill()
    other = tmp_path / ".a.c.tmp-12345678"
    other.mkdir()
    remove_leftovers(path)
    assert list(tmp_path.iterdir()) == [other]


HOLDING = """
import sys
from hybridnets.files import temporary_directory
with temporary_directory("hnx-test-") as folder:
    (folder / "copy").write_text("of something large")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_temporary_folders_of_killed_processes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    command = [sys.executable, "-c", HOLDING]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        left = Path(child.stdout.readline().decode().strip())
        os.utime(left, (1e9, 1e9))
        with temporary_directory("hnx-test-") as folder:
            assert set(tmp_path.iterdir()) == {left, folder}  # its process lives
        child.kill()
    others = [tmp_path / "hnx-other-12345678", tmp_path / "hnx-test-mine"]
    for other in others:
        other.mkdir()
        os.utime(other, (1e9, 1e9))
    (tmp_path / "hnx-test-12345678").symlink_to(others[0])
    os.utime(tmp_path / "hnx-test-12345678", (1e9, 1e9), follow_symlinks=False)
    with temporary_directory("hnx-test-"):
        assert not left.exists()
    assert set(tmp_path.iterdir()) == {*others, tmp_path / "hnx-test-12345678"}


def test_fresh_leftovers_stay(tmp_path: Path) -> None:
    leftover = tmp_path / ".bundle.tmp-12345678"
    leftover.mkdir()
    with atomic_directory(tmp_path / "bundle"):
        pass
    assert leftover.exists()
    os.utime(leftover, (1e9, 1e9))
    with atomic_directory(tmp_path / "bundle"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_moved_aside_by_a_killed_writer_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / ".bundle.old-12345678"
    (aside / "bundle").mkdir(parents=True)
    os.utime(aside, (1e9, 1e9))
    remove_leftovers(tmp_path / "bundle")
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", ["labels.json", "best.pth", "drive.clip.mp4", "no suffix"])
def test_a_temporary_name_tells_what_is_written(tmp_path: Path, name: str) -> None:
    assert written_under(name) == ""
    with atomic_path(tmp_path / name) as temporary:
        assert written_under(temporary.name) == name
