"""A folder with all that folders of pictures come with, through the whole job, as a user who may not read all of it."""

from __future__ import annotations

import io
import json
import os
import shlex
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from beam_jobs.cli.main import main
from beam_jobs.formats.tables import TABLES
from beam_jobs.formats.tf_example import make_example
from beam_jobs.formats.tfrecord import write_records
from beam_jobs.runs.check import check_run
from beam_jobs.runs.folder import remove_run
from beam_jobs.runs.manifest import Manifest
from tests.pictures import BLUE, RED, encode, picture
from tests.test_detect import promised, tables

FAKE = ["detect", "--model=tests.fake_detectors:colours"]

MAX_TREE_BYTES = 1_500_000_000

#: Edges at multiples of 8, so that every block of a JPEG is of one colour and nothing is lost.
WIDTH, HEIGHT = 64, 48
RED_BOX, BLUE_BOX = (8, 8, 24, 32), (32, 16, 56, 40)
PIXELS = picture(WIDTH, HEIGHT, (RED_BOX, RED), (BLUE_BOX, BLUE))

Found = list[tuple[str, tuple[int, int, int, int]]]
BOTH: Found = [("red", RED_BOX), ("blue", BLUE_BOX)]


@dataclass(frozen=True)
class Good:
    """A picture, what it is, and what there is to find in it; `within` pixels where its format loses some."""

    data: bytes
    format: str
    found: Found
    size: tuple[int, int] = (WIDTH, HEIGHT)
    orientation: int = 1
    within: int = 0


def jpeg(pixels: np.ndarray = PIXELS, mode: str = "RGB", orientation: int = 1) -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).convert(mode).save(out, "JPEG", quality=95, subsampling=0, exif=exif)
    return out.getvalue()


def png(
    width: int, height: int, depth: int, colour_type: int, row: bytes, rows: Sequence[bytes] | None = None
) -> bytes:
    """A PNG of kinds that Pillow does not write: of `rows`, or of the same `row` throughout."""
    deflate = zlib.compressobj(9 if rows else 1)
    data = b"".join(deflate.compress(b"\0" + one) for one in (rows or (row for _ in range(height)))) + deflate.flush()

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def palette_with_alpha() -> bytes:
    """A transparent ground, a red box, a blue box that one can see through."""
    indices = np.zeros((HEIGHT, WIDTH), np.uint8)
    for index, (xmin, ymin, xmax, ymax) in ((1, RED_BOX), (2, BLUE_BOX)):
        indices[ymin:ymax, xmin:xmax] = index
    image = Image.fromarray(indices)
    image.putpalette([0, 0, 0, *RED, *BLUE])
    out = io.BytesIO()
    image.save(out, "PNG", transparency=bytes([0, 255, 200]))
    return out.getvalue()


def animated_gif() -> bytes:
    out = io.BytesIO()
    first = Image.fromarray(PIXELS)
    first.save(out, "GIF", save_all=True, append_images=[Image.new("RGB", first.size, "lime")], duration=50)
    return out.getvalue()


def good_pictures() -> dict[bytes, Good]:
    """By path in the folder."""
    plain = Good(encode(PIXELS), "PNG", BOTH)
    upright = picture(HEIGHT, WIDTH, ((8, 8, 24, 24), RED), ((24, 32, 40, 56), BLUE))
    wide = PIXELS.astype(">u2") * 257
    grey = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(">u2")
    return {
        b"cmyk.jpg": Good(jpeg(mode="CMYK"), "JPEG", BOTH),
        b"grey.jpg": Good(jpeg(mode="L"), "JPEG", []),
        b"16-bit.png": Good(png(WIDTH, HEIGHT, 16, 2, b"", [row.tobytes() for row in wide]), "PNG", BOTH),
        b"16-bit-grey.png": Good(png(WIDTH, HEIGHT, 16, 0, b"", [row.tobytes() for row in grey]), "PNG", []),
        b"palette.png": Good(palette_with_alpha(), "PNG", BOTH),
        b"rotated.jpg": Good(
            jpeg(np.rot90(upright), orientation=6),
            "JPEG",
            [("red", (8, 8, 24, 24)), ("blue", (24, 32, 40, 56))],
            size=(HEIGHT, WIDTH),
            orientation=6,
        ),
        b"animated.gif": Good(animated_gif(), "GIF", BOTH),
        b"page.tif": Good(encode(PIXELS, "TIFF", compression="tiff_lzw"), "TIFF", BOTH),
        b"lossless.webp": Good(encode(PIXELS, "WEBP", lossless=True), "WEBP", BOTH),
        b"lossy.webp": Good(encode(PIXELS, "WEBP", quality=95), "WEBP", BOTH, within=2),
        b"bitmap.bmp": Good(encode(PIXELS, "BMP"), "BMP", BOTH),
        b"one pixel.png": Good(encode(picture(1, 1, ((0, 0, 1, 1), RED))), "PNG", [("red", (0, 0, 1, 1))], (1, 1)),
        b"without_extension": Good(jpeg(), "JPEG", BOTH),
        b"wrong-extension.jpg": plain,
        b"picture.txt": Good(encode(PIXELS, "BMP"), "BMP", BOTH),
        b"two  blanks .png": plain,
        b"[1] {a,b} *?.png": plain,
        b"'single' \"double\" `back`.png": plain,
        b"-rf $(HOME) & \\ # %41.png": plain,
        b"new\nline\ttab.png": plain,
        "größe 猫 🐈.png".encode(): plain,
        b"caf\xe9.png": plain,
        b"link.png": plain,
        b"a/b/c d/nested.png": plain,
        "ordner ü/bild".encode(): plain,
    }


#: What gives no result: why, and what people read about it.
BAD = {
    "truncated.jpg": ("decode", "truncated"),
    "truncated.png": ("decode", "truncated"),
    "zero.jpg": ("decode", "empty"),
    "text.jpg": ("decode", "not_an_image"),
    "huge.png": ("decode", "too_large"),
    "phone.heic": ("decode", "unsupported"),
    "locked.png": ("read", "unreadable"),
    "locked": ("read", "unreadable"),
    "self.jpg": ("read", "unreadable"),
    "dangling.jpg": ("read", "not_found"),
    "records.tfrecord#2": ("read", "no_image"),
    "text in a record.jpg": ("decode", "not_an_image"),
}

#: The records of each TFRecord file that are pictures, by the name they have.
RECORDS = {
    "records.tfrecord": ["in a record.png", "records.tfrecord#3"],
    "packed.tfrecord.gz": ["a/packed \n record", "packed.tfrecord.gz#1"],
}


def fill(folder: Path) -> None:
    root = os.fsencode(folder)
    folder.mkdir()
    for path, good in good_pictures().items():
        file = os.path.join(root, path)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as out:
            out.write(good.data)
    (folder / "link.png").unlink()
    (folder / "link.png").symlink_to(folder.parent / "elsewhere.png")
    (folder.parent / "elsewhere.png").write_bytes(encode(PIXELS))

    noise = np.random.default_rng(1).integers(0, 256, (80, 80, 3), np.uint8)
    (folder / "truncated.jpg").write_bytes(jpeg(noise)[:5000])
    (folder / "truncated.png").write_bytes(encode(noise)[:5000])
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("This is no picture.\n")
    (folder / "huge.png").write_bytes(png(30_000, 30_000, 1, 0, bytes(30_000 // 8)))
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (folder / "locked.png").write_bytes(encode(PIXELS))
    (folder / "locked.png").chmod(0)
    (folder / "locked").mkdir()
    (folder / "locked" / "unseen.png").write_bytes(encode(PIXELS))
    (folder / "locked").chmod(0)
    (folder / "self.jpg").symlink_to("self.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")

    # Left out by rule: two hidden names, three links to folders, two special files.
    (folder / ".hidden.png").write_bytes(encode(PIXELS))
    (folder / ".cache").mkdir()
    (folder / ".cache" / "thumb.png").write_bytes(encode(PIXELS))
    (folder / "a" / "up").symlink_to("..")
    (folder / "a" / "b" / "top").symlink_to(folder)
    (folder / "there").symlink_to("a")
    os.mkfifo(folder / "pipe.png")
    # The name of a socket has to be short, wherever the folder is.
    here = os.getcwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("socket.png")
    finally:
        os.chdir(here)

    data = encode(PIXELS)
    plain: list[dict[str, bytes | str]] = [
        {"image/encoded": data, "image/filename": "in a record.png"},
        {"image/encoded": b"This is no picture", "image/filename": "text in a record.jpg"},
        {"image/filename": "nothing.png"},
        {"image/encoded": data},
    ]
    packed: list[dict[str, bytes | str]] = [
        {"image/encoded": data, "image/source_id": "a/packed \n record"},
        {"image/encoded": data},
    ]
    write_records(str(folder / "records.tfrecord"), [make_example(features) for features in plain])
    write_records(str(folder / "packed.tfrecord.gz"), [make_example(features) for features in packed], compress=True)


#: Root reads whatever it likes by two capabilities. Without them it is as anybody else in front of its own files, and
#: still reaches an interpreter that lies in its home folder, which another user would not.
_WITHOUT_PRIVILEGES = """
import ctypes, os, sys
if os.geteuid() == 0:
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            sys.exit("this root may not give up its privileges")
os.execv(sys.executable, [sys.executable, "-m", "beam_jobs", *sys.argv[1:]])
"""


@dataclass(frozen=True)
class Done:
    """A finished run: where, its exit status, what it said, and the most memory that all its processes had together."""

    output: Path
    status: int
    stdout: str
    stderr: str
    peak_bytes: int


def run_unprivileged(output: Path, *words: str) -> Done:
    process = subprocess.Popen(
        [sys.executable, "-c", _WITHOUT_PRIVILEGES, *FAKE, f"--output={output}", *words],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.05):
            peak = max(peak, _tree_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        stdout, stderr = process.communicate(timeout=120)
    finally:
        ended.set()
        watcher.join()
        process.kill()
    return Done(output, process.returncode, stdout, stderr, peak)


def _tree_bytes(pid: int) -> int:
    total = 0
    try:
        launcher = psutil.Process(pid)
        processes = [launcher, *launcher.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # gone meanwhile
            continue
    return total


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("hostile") / "in"
    fill(made)
    yield made
    (made / "locked").chmod(0o700)


@pytest.fixture(scope="module")
def one(folder: Path) -> Done:
    """A run with one detector process."""
    return run_unprivileged(folder.parent / "one", f"--input={folder}", "--annotate", "--workers=1")


@pytest.fixture(scope="module")
def two(folder: Path) -> Done:
    """The same with two."""
    return run_unprivileged(folder.parent / "two", f"--input={folder}", "--annotate", "--workers=2")


@pytest.fixture(scope="module")
def found(one: Done) -> dict[str, pd.DataFrame]:
    return tables(one.output)


def name_of(path: bytes) -> str:
    """The name that a path of `good_pictures` has in the tables."""
    return path.decode() if path != b"caf\xe9.png" else "caf%E9.png"


def expected() -> dict[str, Good]:
    """Every picture that gives a result, by name."""
    plain = Good(encode(PIXELS), "PNG", BOTH)
    records = {name: plain for names in RECORDS.values() for name in names}
    return {**{name_of(path): good for path, good in good_pictures().items()}, **records}


def test_the_job_ends_well_in_bounded_memory(one, two):
    for done in (one, two):
        assert (done.status, done.stderr) == (0, "")
        assert 0 < done.peak_bytes < MAX_TREE_BYTES
        assert (done.output / "_SUCCESS").exists()
        assert "\x1b" not in done.stdout


def test_every_input_is_accounted_for_once(one, folder, found):
    good, records = expected(), 4 + 2
    assert list(check_run(str(one.output))) == []
    assert sorted(found["images"].file_name) == sorted(good)
    assert sorted(found["failures"].file_name) == sorted(BAD)
    counts, inputs = (manifest := Manifest.read(str(one.output))).counts, manifest.inputs
    assert (counts.images, counts.failed, counts.tfrecord_files) == (len(good), len(BAD), 2)
    assert counts.inputs == counts.images + counts.failed
    assert inputs.planned == counts.inputs - records + 2
    assert (inputs.hidden_skipped, inputs.folder_links_skipped, inputs.special_files_skipped) == (2, 3, 2)
    assert manifest.renamed == []
    # That is all that the folder holds: root looks into `locked`, too.
    names = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    below_rules = {folder / ".hidden.png", folder / ".cache/thumb.png", folder / "locked/unseen.png"}
    left_out = inputs.folder_links_skipped + inputs.special_files_skipped
    assert len(set(names) - below_rules) == inputs.planned - len(["locked"]) + left_out


def test_the_good_ones_are_right(found):
    good = expected()
    detections = dict(iter(found["detections"].groupby("file_name")))
    for image in found["images"].itertuples():
        want = good[image.file_name]
        assert ((image.width, image.height), image.format, image.exif_orientation, image.bytes) == (
            want.size,
            want.format,
            want.orientation,
            len(want.data),
        ), image.file_name
        assert image.num_detections == len(want.found), image.file_name
        rows = detections.get(image.file_name, found["detections"].iloc[:0])
        for row, (category, box) in zip(rows.sort_values("category_id").itertuples(), want.found, strict=True):
            assert row.category == category, image.file_name
            got = (row.xmin, row.ymin, row.xmax, row.ymax)
            assert got == pytest.approx(box, abs=want.within, rel=0), image.file_name


def test_the_bad_ones_say_why(found):
    failures = found["failures"].set_index("file_name")
    assert {row.Index: (row.stage, row.code) for row in failures.itertuples()} == BAD
    assert "30000x30000" in failures.message["huge.png"]
    assert "permission" in failures.message["locked.png"]
    assert "leads back to itself" in failures.message["self.jpg"]


def test_a_folder_that_may_not_be_listed_is_a_failure(found, folder):
    (row,) = found["failures"][found["failures"].file_name == "locked"].itertuples()
    assert (row.uri, row.code) == (str(folder / "locked"), "unreadable")
    assert not found["images"].file_name.str.contains("unseen").any()


def test_names_are_valid_utf_8_and_uris_lead_back(one, folder):
    for table in TABLES:
        for path in (one.output / table).iterdir():
            pq.read_table(path).validate(full=True)
    images = pq.read_table(one.output / "images").to_pylist()
    for image in images:
        if image["file_name"] not in {name for names in RECORDS.values() for name in names}:
            assert image["uri"] == f"{folder}/{image['file_name']}"
    for path in one.output.rglob("*.json"):
        json.loads(path.read_bytes().decode())
    dataset = json.loads((one.output / "coco/dataset.json").read_bytes())
    assert sorted(image["file_name"] for image in dataset["images"]) == sorted(expected())


def test_annotated_pictures_decode_in_the_same_size(one, folder):
    good = expected()
    paths = {name: one.output / "annotated" / name for name in good}
    # A name that only looks like this one must not lose its picture to it.
    (paths["caf%E9.png"],) = (one.output / "annotated").glob("caf%E9~*.png")
    for container, names in RECORDS.items():
        for name in names:
            base = name.rpartition("/")[2]
            (paths[name],) = (p for p in (one.output / "annotated" / container).iterdir() if base in p.name)
            assert paths[name].suffix == ".png"
    for name, path in paths.items():
        with Image.open(path) as image:
            assert (image.size, image.format) == (good[name].size, good[name].format), name
            image.load()
            assert getattr(image, "n_frames", 1) == 1
    present = {path for path in (one.output / "annotated").rglob("*") if path.is_file()}
    assert present == set(paths.values())
    with Image.open(paths["palette.png"]) as image:
        assert image.convert("RGB").getpixel((1, HEIGHT - 1)) == (255, 255, 255)


def test_one_process_and_two_give_the_same_bytes(one, two):
    assert promised(one.output) == promised(two.output)
    assert len(promised(one.output)) > len(expected())


def test_a_folder_with_the_characters_of_a_pattern_in_its_name(tmp_path):
    for name in ("in [1]", "in 1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "*.png").write_bytes(encode(PIXELS))
    assert main([*FAKE, f"--output={tmp_path}/out [1]", f"--input={tmp_path}/in [1]"]) == 0
    (image,) = tables(tmp_path / "out [1]")["images"].itertuples()
    assert (image.uri, image.file_name) == (f"{tmp_path}/in [1]/*.png", "*.png")


def test_names_that_are_one_in_the_tables_are_two_annotated_pictures(tmp_path):
    """An undecodable name, and the name that reads like its escapes."""
    (tmp_path / "in").mkdir()
    for name, colour in ((b"caf\xe9.png", RED), (b"caf%E9.png", BLUE)):
        with open(os.path.join(os.fsencode(tmp_path), b"in", name), "wb") as out:
            out.write(encode(picture(40, 40, ((0, 10, 40, 40), colour))))
    output = tmp_path / "out"
    assert main([*FAKE, f"--output={output}", f"--input={tmp_path}/in", "--annotate"]) == 0
    index = pd.read_parquet(output / "_plan/annotated")
    assert index.file_name.tolist() == ["caf%E9.png"] * 2
    assert index.path.is_unique
    colours = {Image.open(output / path).convert("RGB").getpixel((20, 35)) for path in index.path}
    assert colours == {RED, BLUE}
    assert "annotated/caf%E9.png" in set(index.path)
    assert list(check_run(str(output))) == []
    assert Manifest.read(str(output)).counts.annotated == 2
    remove_run(str(output))
    assert not list(output.iterdir())


def test_annotated_pictures_of_which_name_or_size_do_not_fit(tmp_path):
    """An escape makes a name three times as long, a record's has no limit, and a GIF's frame may lie far outside."""
    (tmp_path / "in").mkdir()
    data = encode(PIXELS)
    with open(os.path.join(os.fsencode(tmp_path), b"in", b"\xe9" * 120 + b".png"), "wb") as out:
        out.write(data)
    names = ["猫" * 200 + end for end in ("1.png", "2.png")]
    records = [make_example({"image/encoded": data, "image/filename": name}) for name in names]
    write_records(str(tmp_path / "in" / "r.tfrecord"), records)
    gif = bytearray(encode(picture(20, 10), "GIF"))
    frame = 13 + 3 * (2 << (gif[10] & 7))
    at = gif.index(b",", frame)
    struct.pack_into("<H", gif, at + 1, 65_530)
    (tmp_path / "in" / "wide.gif").write_bytes(gif)
    output = tmp_path / "out"
    assert main([*FAKE, f"--output={output}", f"--input={tmp_path}/in", "--annotate"]) == 0
    index = pd.read_parquet(output / "_plan/annotated").set_index("file_name")
    assert sorted(index.index) == sorted(["%E9" * 120 + ".png", *names, "wide.gif"])
    sizes = {name: Image.open(output / path).size for name, path in index.path.items()}
    assert sizes == {**dict.fromkeys(index.index, (WIDTH, HEIGHT)), "wide.gif": (65_550, 10)}
    assert all(path.endswith(".png") for name, path in index.path.items() if name != "wide.gif")


def test_a_run_that_was_stopped_at_its_first_record_can_be_removed(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.tfrecord", "b.tfrecord"):
        write_records(str(tmp_path / "in" / name), [make_example({"image/encoded": encode(PIXELS)})])
    output = tmp_path / "out"
    assert main([*FAKE, f"--output={output}", f"--input={tmp_path}/in", "--annotate"]) == 0
    for name, left in (("a.tfrecord", ".tmp-beam-detect-0123456789abcdef"), ("b.tfrecord", "")):
        (one,) = (output / "annotated" / name).iterdir()
        if left:
            one.rename(one.with_name(left))
        else:
            one.unlink()
    remove_run(str(output))
    assert not list(output.iterdir())


def test_an_undecodable_word_on_the_command_line(tmp_path):
    folder = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9"))
    os.mkdir(folder)
    Path(folder, "a.png").write_bytes(encode(PIXELS))
    output = tmp_path / "out"
    assert main([*FAKE, f"--output={output}", f"--input={folder}/a.png"]) == 0
    assert list(check_run(str(output))) == []
    (image,) = tables(output)["images"].itertuples()
    assert (image.uri, image.file_name) == (f"{tmp_path}/caf%E9/a.png", "a.png")
    assert Manifest.read(str(output)).command[-1] == f"--input={tmp_path}/caf%E9/a.png"


def test_what_an_earlier_run_wrote_is_no_input_of_the_next(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(encode(PIXELS))
    words = [*FAKE, f"--output={tmp_path}/x/out", "--annotate"]
    assert main([*words, f"--input={tmp_path}"]) == 0
    before = promised(tmp_path / "x" / "out")
    capsys.readouterr()
    for output, pattern in (("b", ""), ("c", "/**/*.png")):
        assert main([*FAKE, f"--output={tmp_path}/{output}", f"--input={tmp_path}{pattern}"]) == 0
        said = capsys.readouterr()
        assert f"warning: left out what earlier runs wrote: {tmp_path}/" in said.err
        assert f"{tmp_path}/x/out" in said.err
        assert "1; 1 skipped: what an earlier run wrote" in said.out.replace("2 skipped", "1 skipped")
        assert tables(tmp_path / output)["images"].file_name.tolist() == ["a.png"]
    assert main([*words, f"--input={tmp_path}", "--overwrite"]) == 0
    assert promised(tmp_path / "x" / "out") == before
    # What is named is meant.
    assert main([*FAKE, f"--output={tmp_path}/d", f"--input={tmp_path}/x/out/annotated"]) == 0
    assert main([*FAKE, f"--output={tmp_path}/e", f"--input={tmp_path}/x/out"]) == 2
    assert f"the input '{tmp_path}/x/out' is the folder of a run" in capsys.readouterr().err
    assert main([*words, f"--input={tmp_path}/x/out/annotated", "--overwrite"]) == 2
    assert "keep --output out of the inputs" in capsys.readouterr().err
    assert promised(tmp_path / "x" / "out") == before


#: What a caller may do to the streams of a program, and the exit status of a run of it.
STREAMS = [(">&- 2>&- <&-", 0), ("| true", 0), (">/dev/full", 3)]


@pytest.mark.parametrize(("streams", "status"), STREAMS)
def test_streams_that_lead_nowhere(tmp_path, streams, status):
    (tmp_path / "猫.png").write_bytes(encode(PIXELS))
    words = shlex.join([sys.executable, "-m", "beam_jobs", *FAKE, f"--output={tmp_path}/out", f"--input={tmp_path}"])
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{words} {streams}"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == status
    assert done.stderr.count("\n") == (status != 0), done.stderr
    assert (tmp_path / "out" / "_SUCCESS").exists()
