"""A file in staging is whole or not there; a disk that fails is told, and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from bucket import Bucket, BucketPath

from kuaimai.errors import ConfigError, Transient
from kuaimai.extract.staging import Staging, safe_name


@pytest.fixture
def staging(tmp_path):
    return Staging(tmp_path / "staging")


def test_compressed_content_comes_back(staging):
    staging.write_compressed("trades/r/1/00001.json.zst", b"x" * 1_000_000)
    assert staging.read_compressed("trades/r/1/00001.json.zst") == b"x" * 1_000_000
    assert (staging.root / "trades/r/1/00001.json.zst").stat().st_size < 10_000


def test_file_that_was_not_finished_does_not_exist(staging):
    with pytest.raises(RuntimeError), staging.writing("a/b") as file:
        file.write(b"half")
        raise RuntimeError("the worker dies here")
    assert list((staging.root / "a").iterdir()) == []


def test_object_that_was_not_finished_does_not_exist():
    store = Bucket()
    staging = Staging(BucketPath(store))
    with pytest.raises(RuntimeError), staging.writing("a/b") as file:
        file.write(b"half")
        raise RuntimeError("the worker dies here")
    assert store.objects == {}
    staging.write("a/b", b"whole")
    with staging.reading("a/b") as file:
        assert file.read() == b"whole"


def test_folder_of_an_object_store_that_is_not_there_has_no_names():
    staging = Staging(BucketPath(Bucket()))
    assert staging.names("a") == []
    staging.write("a/b", b"x")
    assert staging.names("a") == ["b"]


def test_folder_is_for_its_owner_only(staging):
    staging.write("a/b", b"x")
    assert (staging.root / "a").stat().st_mode & 0o077 == 0


def test_file_that_is_gone_is_told_with_what_to_do(staging):
    with pytest.raises(ConfigError, match="clear the extract task"):
        staging.read_compressed("a/b")


def test_path_that_leads_out_is_refused(staging):
    with pytest.raises(ConfigError, match="leads out"):
        staging.write("../a", b"x")


def test_full_disk_is_told_and_leaves_no_half_file(tmp_path):
    # The kernel's own limit on file sizes gives the error that a full disk gives, without one.
    code = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from kuaimai.errors import Transient
        from kuaimai.extract.staging import Staging
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            Staging(Path(sys.argv[1])).write("a/b", bytes(100_000))
        except Transient as err:
            print(err)
    """)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "plugins")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "staging is full" in done.stdout
    assert "read again by itself" in done.stdout
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("error", ["EACCES", "EROFS", "ENOSPC"])
def test_disk_errors_name_the_folder(staging, monkeypatch, error):
    import errno

    def refuse(*_args, **_kwargs):
        raise OSError(getattr(errno, error), os.strerror(getattr(errno, error)))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(Transient if error == "ENOSPC" else ConfigError, match=str(staging.root)):
        staging.write("a/b", b"x")


def test_old_runs_are_swept_and_young_ones_stay(staging, clock):
    for run, age in (("old", 9), ("young", 2)):
        staging.write(f"trades/{run}/0001/raw", b"x")
        stamp = clock() - age * 86_400
        os.utime(staging.root / f"trades/{run}/0001/raw", (stamp, stamp))
    assert staging.sweep(7, now=clock) == 1
    assert [path.name for path in (staging.root / "trades").iterdir()] == ["young"]


def test_run_ids_become_one_path_segment():
    assert safe_name("scheduled__2026-11-24T00:05:00+08:00") == "scheduled__2026-11-24T00_05_00_08_00"
