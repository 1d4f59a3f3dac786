"""Files are written whole or not at all, locks end with their process, hashes are SHA-256."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mic import files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    files.write_text(file, "old")

    def write() -> None:
        with files.replacing(file) as partial:
            assert partial == files.partial_path(file)
            partial.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert file.read_text() == "old"
    assert [*tmp_path.iterdir()] == [file]


def test_json_has_text_keys_and_no_number_that_is_not_finite(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    files.write_json(file, {"sts": {16: 0.5, 32: float("nan")}, "dims": (16, 32)})
    assert json.loads(file.read_text()) == {"sts": {"16": 0.5, "32": None}, "dims": [16, 32]}
    assert [*tmp_path.iterdir()] == [file]


def test_a_hash_is_sha_256(tmp_path: Path) -> None:
    file = tmp_path / "abc"
    file.write_bytes(b"abc")  # the example of FIPS 180-4
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(file) == expected


def test_free_disk_is_known_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert files.free_bytes(tmp_path / "a" / "b") > 0


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = f"""
import sys
from pathlib import Path
from mic.files import locked
with locked(Path({str(lock)!r})):
    print("locked", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(BlockingIOError), files.locked(lock, wait=False):
            pass
        holder.kill()
    with files.locked(lock, wait=False):
        pass
