"""Files appear whole or not at all, whatever happens on the way."""

import hashlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammopath import files


def test_text_and_bytes_come_back(tmp_path):
    files.write_text(tmp_path / "deep" / "er" / "a.txt", "größe\r\n5 µm\n")
    files.write_bytes(tmp_path / "b.bin", b"\x00\xff")
    assert (tmp_path / "deep" / "er" / "a.txt").read_bytes() == "größe\r\n5 µm\n".encode()
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\xff"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    files.write_text(target, "old")

    def fail():
        with files.writing(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_temporary_file_is_in_the_same_folder_with_the_same_suffix(tmp_path):
    with files.writing(tmp_path / "a.parquet") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".parquet"
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"x")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch, failing):
    target = tmp_path / "a.txt"
    files.write_text(target, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full) if failing == "fsync" else monkeypatch.setattr(Path, failing, full)
    with pytest.raises(OSError, match="No space"):
        files.write_text(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def _write_for_ever(path):
    number = 0
    while True:
        files.write_text(path, f"{number:08d}" * 5000)
        number += 1


def _start(target, *args):
    process = multiprocessing.get_context("fork").Process(target=target, args=args, daemon=True)
    process.start()
    return process


def test_kill_9_leaves_a_whole_file(tmp_path):
    target = tmp_path / "a.txt"
    files.write_text(target, "0" * 40000)
    for delay in (0.005, 0.011, 0.017, 0.023):
        process = _start(_write_for_ever, target)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        text = target.read_text()
        assert len(text) == 40000
        assert text == text[:8] * 5000


def test_appended_lines_come_back_in_order(tmp_path):
    for line in ("one", "", "zwölf"):
        files.append_line(tmp_path / "sub" / "r.jsonl", line)
    assert files.read_lines(tmp_path / "sub" / "r.jsonl") == ["one", "zwölf"]
    assert files.read_lines(tmp_path / "absent.jsonl") == []
    with pytest.raises(ValueError, match="one line"):
        files.append_line(tmp_path / "r.jsonl", "a\nb")


_LINE = st.text(st.characters(blacklist_characters="\r\n", codec="utf-8"), min_size=1)


@given(lines=st.lists(_LINE), torn=st.binary(max_size=9).filter(lambda b: b"\n" not in b))
def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path_factory, lines, torn):
    path = tmp_path_factory.mktemp("torn") / "r.jsonl"
    path.write_bytes("".join(line + "\n" for line in lines).encode() + torn)
    assert files.read_lines(path) == lines
    files.append_line(path, "after")
    assert files.read_lines(path) == [*lines, "after"]


def _append_many(path, name):
    for number in range(100):
        files.append_line(path, f"{name}-{number}-" + name * 200)


def test_parallel_writers_do_not_mix_their_lines(tmp_path):
    path = tmp_path / "r.jsonl"
    processes = [_start(_append_many, path, name) for name in "ab"]
    for process in processes:
        process.join()
    lines = files.read_lines(path)
    assert sorted(lines) == sorted(f"{n}-{i}-" + n * 200 for n in "ab" for i in range(100))


def test_sha256_is_that_of_hashlib(tmp_path):
    data = os.urandom(3_000_001)
    (tmp_path / "x").write_bytes(data)
    assert files.sha256(tmp_path / "x") == hashlib.sha256(data).hexdigest()
