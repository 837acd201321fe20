"""--dedupe: each content is detected once, and every file has its rows, as without it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from beam_jobs.cli.main import main
from beam_jobs.formats.tables import TABLES
from beam_jobs.formats.tf_example import make_example
from beam_jobs.formats.tfrecord import write_records
from beam_jobs.matching import Found
from beam_jobs.runs.manifest import Manifest
from beam_jobs.runs.plan import Planner, read_part
from beam_jobs.transforms.plan import groups_of_part
from tests.fake_detectors import FATAL_WIDTH
from tests.pictures import GREEN, RED, encode, picture
from tests.test_detect import promised

A = encode(picture(40, 30, ((3, 4, 13, 14), RED)))
B = encode(picture(40, 30, ((20, 4, 30, 14), GREEN)))
FATAL = encode(picture(FATAL_WIDTH, 30))


def write(folder: Path, **contents: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (folder / f"{name}.png").write_bytes(data)


def run(output: Path, *words: str, model: str = "colours") -> Manifest:
    assert main(["detect", f"--output={output}", f"--model=tests.fake_detectors:{model}", *words]) == 0
    return Manifest.read(str(output))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two contents in seven files, two that are broken the same way, empty ones, and a TFRecord file twice."""
    folder = tmp_path / "in"
    write(folder, a0=A, a2=A, a4=A, b1=B, b3=B, b9=B, c=A + b"tail", broken1=b"no picture", broken2=b"no picture")
    write(folder, empty1=b"", empty2=b"")
    for name in ("r1.tfrecord", "r2.tfrecord"):
        write_records(str(folder / name), [make_example({"image/encoded": A, "image/filename": f"{name}.png"[:2]})])
    return folder


def test_the_same_bytes_with_and_without(mixed, tmp_path, capsys):
    plain = run(tmp_path / "plain", f"--input={mixed}", "--annotate")
    once = run(tmp_path / "once", f"--input={mixed}", "--annotate", "--dedupe", "--workers=2")
    assert promised(tmp_path / "plain") == promised(tmp_path / "once")
    assert (plain.counts.deduplicated, once.counts.deduplicated) == (0, 6)
    assert (plain.job["dedupe"], once.job["dedupe"]) == (False, True)
    assert {file.path for file in plain.files} == {file.path for file in once.files}
    assert "6 have the content of others, and were not detected on" in capsys.readouterr().out
    timings = pd.read_parquet(tmp_path / "once/timings").set_index("file_name")
    assert (timings.infer_ms > 0).to_dict() == {
        **{"a0.png": True, "a2.png": False, "a4.png": False, "b1.png": True, "b3.png": False, "b9.png": False},
        **{"c.png": True, "r1": True, "r2": True},
    }


def test_the_same_rows_where_parts_are_small(mixed, tmp_path):
    def rows(output: Path) -> dict[str, list[list[object]]]:
        tables = {name: pd.read_parquet(output / name) for name in TABLES if name != "timings"}
        return {name: sorted(table.astype(str).to_numpy().tolist()) for name, table in tables.items()}

    run(tmp_path / "plain", f"--input={mixed}", "--part_size=2")
    once = run(tmp_path / "once", f"--input={mixed}", "--part_size=2", "--dedupe")
    assert rows(tmp_path / "plain") == rows(tmp_path / "once")
    # a0 a2, a4 b1, b3 b9, broken1 broken2, c empty1, empty2 r1, r2: a full part ends, and the next begins anew.
    assert once.counts.deduplicated == 3


def test_a_detector_sees_each_content_once(tmp_path, monkeypatch):
    seen = tmp_path / "seen"
    monkeypatch.setenv("BEAM_DETECT_TEST_SEEN", str(seen))
    write(tmp_path / "in", a0=A, a2=A, a4=A, b1=B, b3=B, c=A + b"tail")
    run(tmp_path / "once", f"--input={tmp_path}/in", "--dedupe", model="Noting")
    # A, B, and what only looks like A.
    assert sorted(Counter(seen.read_text().split()).values()) == [1, 2]
    seen.unlink()
    run(tmp_path / "plain", f"--input={tmp_path}/in", model="Noting")
    assert sorted(Counter(seen.read_text().split()).values()) == [2, 4]


@pytest.mark.parametrize(("model", "code"), [("Raise", "inference"), ("Segfault", "crashed")])
def test_twins_fail_together(tmp_path, model, code):
    write(tmp_path / "in", a0=A, a1=A, f0=FATAL, f1=FATAL, f2=FATAL)
    manifest = run(tmp_path / "out", f"--input={tmp_path}/in", "--dedupe", "--annotate", model=model)
    assert manifest.counts.failures == {code: 3}
    assert (manifest.counts.images, manifest.counts.annotated, manifest.counts.deduplicated) == (2, 2, 3)
    failures = pd.read_parquet(tmp_path / "out/failures")
    assert failures.file_name.tolist() == ["f0.png", "f1.png", "f2.png"]
    assert failures.message.nunique() == 1


def test_a_dry_run_counts_them_and_writes_nothing(tmp_path, capsys):
    write(tmp_path / "in", a0=A, a1=A, b=B)
    words = [f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--model=tests.fake_detectors:colours"]
    assert main(["detect", *words, "--dedupe", "--dry_run"]) == 0
    assert "3 inputs" in (printed := capsys.readouterr().out)
    assert "1 with a content that others have as well" in printed
    assert not (tmp_path / "out").exists()


def test_records_cannot_be_asked_for(tmp_path, capsys):
    write(tmp_path / "in", a=A)
    words = [f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--model=tests.fake_detectors:colours"]
    assert main(["detect", *words, "--dedupe", "--input_format=tfrecord"]) == 2
    assert "--dedupe compares files of pictures" in capsys.readouterr().err


def planned(tmp_path: Path, found: list[Found], *, limit: int | None = None, max_bytes: int = 1 << 20):
    with Planner() as planner:
        planner.add(found)
        planner.arrange(limit)
        plain = [one.key for one in planner]
        planner.dedupe(max_bytes)
        planner.write(str(tmp_path / "run"), 500, {})
        return plain, read_part(str(tmp_path / "run"), 0)


def test_twins_follow_the_first_and_keep_their_ids(tmp_path):
    write(tmp_path, a=A, b=B, c=A, d=B, e=A)
    # The sizes of two are not known, as in a list of URLs; two are of nothing, one of them by a wrong size.
    sizes = {"a": len(A), "b": len(B), "c": None, "d": None, "e": len(A), "missing": None, "gone": len(A)}
    found = [Found(f"{tmp_path}/{name}.png", name, size, None) for name, size in sizes.items()]
    plain, deduped = planned(tmp_path, found)
    assert [(one.input, one.key.file_name, one.first) for one in deduped] == [
        *((0, "a", 0), (1, "c", 0), (2, "e", 0), (3, "b", 3), (4, "d", 3)),
        *((5, "gone", 5), (6, "missing", 6)),
    ]
    assert {one.key for one in deduped} == set(plain)
    works = [work for _, group in groups_of_part(0, str(tmp_path / "run"), 2) for work in group]
    assert [[one.name for one in (work, *work.twins)] for work in works] == [
        *(["a", "c", "e"], ["b", "d"], ["gone"], ["missing"])
    ]
    assert [len(group) for _, group in groups_of_part(0, str(tmp_path / "run"), 2)] == [2, 2]


def test_files_that_are_too_large_to_be_pictures_are_not_read(tmp_path):
    write(tmp_path, a=A, b=A)
    found = [Found(f"{tmp_path}/{name}.png", name, len(A), None) for name in "ab"]
    assert [one.first for one in planned(tmp_path, found, max_bytes=len(A))[1]] == [0, 0]
    assert [one.first for one in planned(tmp_path, found, max_bytes=len(A) - 1)[1]] == [0, 1]


def test_a_limit_counts_files_in_order_of_name(tmp_path):
    write(tmp_path, a=A, b=B, c=A)
    found = [Found(f"{tmp_path}/{name}.png", name, None, None) for name in "abc"]
    assert [one.key.file_name for one in planned(tmp_path, found, limit=2)[1]] == ["a", "b"]
