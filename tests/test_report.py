"""The reports, as files: what is in them, and that data stays data."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from beam_jobs import storage
from beam_jobs.cli.main import main
from beam_jobs.errors import InputError
from beam_jobs.imaging.decode import decode
from beam_jobs.report import charts, heatmap, numbers
from beam_jobs.report.compare_page import compare_page
from beam_jobs.report.content import Confusion, Curves, Histogram, Series
from beam_jobs.report.evaluation_page import evaluation_page
from beam_jobs.report.from_run import run_content
from beam_jobs.report.gallery import BUDGET, Candidate, Gallery, Marked, render
from beam_jobs.report.markup import Html, escape, tag
from beam_jobs.report.run_page import run_page
from beam_jobs.report.textwidth import shorten, width
from beam_jobs.runs.manifest import Manifest
from tests import pictures
from tests.report_contents import EVIL_CLASS, EVIL_FILE, compare, evaluation, run

PAGES: dict[str, Callable[[], bytes]] = {
    "evaluation": lambda: evaluation_page(evaluation()),
    "run": lambda: run_page(run()),
    "compare": lambda: compare_page(compare()),
}
VOID = {"meta", "link", "img", "input", "br"}


class Reader(HTMLParser):
    """The elements of a page, its texts, and whether every element is closed where it should be."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page.decode())
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)


@pytest.fixture(params=sorted(PAGES))
def page(request: pytest.FixtureRequest) -> bytes:
    return PAGES[request.param]()


def test_names_from_the_data_stay_text(page: bytes) -> None:
    read = Reader(page)
    kinds = Counter(name for name, _ in read.elements)
    assert kinds["script"] == 1
    assert all(
        (attributes["src"] or "").startswith("data:image/jpeg;base64,")
        for name, attributes in read.elements
        if name == "img"
    )
    assert not any(key.startswith("on") for _, attributes in read.elements for key in attributes)
    assert EVIL_CLASS in "".join(read.texts)
    assert EVIL_FILE in "".join(read.texts)


def test_page_needs_nothing_from_elsewhere(page: bytes) -> None:
    text = page.decode()
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[\w+/=]+", "", re.sub(r"\s//.*", "", text)))
    policy = next(a["content"] for n, a in Reader(page).elements if n == "meta" and "http-equiv" in a)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script
    assert policy
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_same_content_gives_the_same_bytes(page: bytes, request: pytest.FixtureRequest) -> None:
    assert PAGES[request.node.callspec.params["page"]]() == page


def test_structure_serves_readers_of_all_kinds(page: bytes) -> None:
    elements = Reader(page).elements
    kinds = Counter(name for name, _ in elements)
    assert kinds["h1"] == 1
    assert kinds["table"] == kinds["caption"] > 0
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    references = [a["href"] for n, a in elements if n == "a"]
    assert references[0] == "#main"
    local = [reference for reference in references if reference and not reference.startswith("../out/annotated/")]
    assert all(reference[1:] in ids for reference in local)
    for name, attributes in elements:
        if name == "img":
            assert attributes["alt"]
        if name == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes["role"] == "img"
        for reference in (attributes.get("aria-labelledby") or "").split():
            assert reference in ids


def test_numbers_are_written_alike() -> None:
    text = "".join(Reader(PAGES["evaluation"]()).texts)
    assert "0.264" in text
    assert "0.26449" not in text
    assert "-1.000" not in text
    assert [numbers.metric(v) for v in (0.26449, -1, float("nan"), 0.0, None)] == ["0.264", "–", "–", "0.000", "–"]
    assert [numbers.difference(v) for v in (0.01, -0.01, -0.0001, float("nan"))] == ["+0.010", "−0.010", "0.000", "–"]
    assert [numbers.percent(v) for v in (0, 0.011, 0.4, 1)] == ["0 %", "1.1 %", "40 %", "100 %"]
    assert [numbers.seconds(v) for v in (0.0123, 2.44, 75, 7260)] == ["12 ms", "2.4 s", "1 min 15 s", "2 h 1 min"]


def test_many_classes_keep_the_page_small() -> None:
    names = tuple(f"class {i}" for i in range(1203))
    page = evaluation_page(evaluation(names, gallery=()))
    assert len(page) < 4_000_000
    assert "1,153 are left out" in page.decode()


def test_page_without_the_optional_parts() -> None:
    full = evaluation()
    bare = type(full)("t", "m", (), (), (), full.summary, (), ())
    assert [a["id"] for n, a in Reader(evaluation_page(bare)).elements if n == "section"] == ["summary"]


def test_surrogates_and_controls_do_not_reach_the_page() -> None:
    assert escape("a\x00b\ud800\tc") == "a\ufffdb\ufffd\tc"
    assert tag("i", {"title": 'a"<'}, "<b>", Html("<b></b>")) == '<i title="a&quot;&lt;">&lt;b&gt;<b></b></i>'


@pytest.mark.parametrize(
    "precision", [[0.0] * 101, [1.0] * 101, [1 - i / 100 for i in range(101)], [1.0] * 50 + [0.2] * 51]
)
def test_curve_path_goes_through_the_points(precision: list[float]) -> None:
    steps = re.findall(r"([MHL])(\d+)(?: (\d+))?", charts.curve_path(precision))
    seen, y = {}, 0
    for command, a, b in steps:
        y = y if command == "H" else int(b)
        seen[int(a)] = y
    assert np.allclose(
        np.interp(range(101), list(seen), list(seen.values())), [1000 - 1000 * p for p in precision], atol=0.5
    )


def test_curve_without_truths_is_empty() -> None:
    assert charts.curve_path([-1.0] * 101) == ""


@pytest.mark.parametrize(("maximum", "last"), [(0, 1), (1, 1), (7, 8), (2172, 2500), (0.03, 0.03), (1e9, 1e9)])
def test_ticks_are_round_and_reach_the_maximum(maximum: float, last: float) -> None:
    assert charts.ticks(maximum)[0] == 0
    assert charts.ticks(maximum)[-1] == pytest.approx(last)


def test_largest_confusions_are_of_two_classes() -> None:
    confusion = Confusion(("a", "b"), np.array([[5, 3, 2], [1, 7, 2], [9, 9, 0]]))
    found = heatmap.largest(confusion, 10)
    assert [(pair.truth, pair.detected, pair.count, pair.share) for pair in found] == [
        ("a", "b", 3, 0.3),
        ("b", "a", 1, 0.1),
    ]


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"counts must be \[3, 3\], got \[2, 2\]"):
        Confusion(("a", "b"), np.zeros((2, 2), np.int64))
    with pytest.raises(ValueError, match="the mean must have 1 lines of 101"):
        Curves(("IoU 0.50",), ([0.5] * 100,), {})
    with pytest.raises(ValueError, match="detections must have 2 counts, got 1"):
        Histogram((0, 1, 2), (Series("detections", (1,)),))


def test_names_are_cut_by_width() -> None:
    assert shorten("tennis racket", 20) == "tennis racket"
    assert width(shorten("x" * 5000, 20)) <= 20
    assert width(shorten("猫" * 50, 20)) <= 20


def candidates(kind: str, count: int, source: str = "ok") -> list[Candidate]:
    box = Marked((10, 10, 30, 30), "dog 0.90", "detection", focus=True)
    return [Candidate(kind, source, f"{kind}-{i}", ("dog",), "dog", (box,)) for i in range(count)]  # type: ignore[arg-type]


def noise(_: str) -> bytes:
    return pictures.encode(np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8), "JPEG")


def test_gallery_keeps_to_its_budget_and_shares_it_between_kinds() -> None:
    one = Gallery(noise).items(candidates("hit", 1))[0].picture
    assert one
    assert max(one.width, one.height) <= 480
    size = (len(one.jpeg) + 2) // 3 * 4
    made = Gallery(noise, budget=4 * size).items([*candidates("hit", 9), *candidates("missed", 9)])
    assert [item.file_name for item in made] == ["hit-0", "hit-1", "missed-0", "missed-1"]
    assert BUDGET == 6_000_000


def test_gallery_says_why_a_picture_is_missing() -> None:
    def read(source: str) -> bytes:
        if source == "gone":
            raise FileNotFoundError(2, "No such file", "/somewhere/gone.jpg")
        if source == "refused":
            raise InputError("read", "not_found", "no such record")
        return b"no picture"

    sources = ("gone", "refused", "text")
    made = Gallery(read).items([one for source in sources for one in candidates("hit", 1, source)])
    assert [item.picture for item in made] == [None] * 3
    assert ["No such file" in made[0].missing, "no such record" in made[1].missing] == [True, True]
    assert "not a JPEG" in made[2].missing
    assert "/somewhere" not in made[0].missing


def test_small_objects_are_enlarged_and_boxes_follow() -> None:
    pixels = np.zeros((2000, 3000, 3), np.uint8)
    pixels[1500:1550, 2000:2060] = (0, 255, 0)
    whole = render(pixels, [Marked((2000, 1500, 2060, 1550), "", "truth")])
    assert (whole.width, whole.height) == (480, 320)
    cut = render(pixels, [Marked((2000, 1500, 2060, 1550), "", "truth", focus=True)])
    assert (cut.width, cut.height) == (480, 360)
    green = decode(cut.jpeg).pixels[..., 1] > 200
    assert 0.03 < green.mean() < 0.08
    ys, xs = np.nonzero(green)
    assert abs(xs.mean() - 240) < 5
    assert abs(ys.mean() - 180) < 5


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_odd_sizes_are_shown(size: tuple[int, int]) -> None:
    picture = render(np.zeros((size[1], size[0], 3), np.uint8), [Marked((0, 0, 1, 1), "x", "class", focus=True)])
    assert 1 <= max(picture.width, picture.height) <= 480


def test_page_of_a_run_counts_what_its_tables_hold(tmp_path: Path) -> None:
    names = pictures.write_pictures(tmp_path / "in", 6)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    (tmp_path / "in" / names[0]).unlink()
    output = tmp_path / "out"
    model = "--model=tests.fake_detectors:ColourDetector"
    assert main(["detect", f"--input={tmp_path / 'in'}", f"--output={output}", model]) == 0
    content = run_content(str(output), storage.read_bytes)
    counts = dict(content.counts)
    assert (counts["pictures"], counts["failures"]) == (5, 1)
    assert counts["detections"] == sum(row.detections for row in content.categories) == 10
    assert sum(content.score_bins.series[0].counts) == 10
    assert [row.images for row in content.categories] == [5, 5]
    boxes = content.boxes_per_picture
    assert dict(zip(boxes.edges, boxes.series[0].counts, strict=False))[2] == sum(boxes.series[0].counts) == 5
    assert [(row.code, row.count, row.examples) for row in content.failures] == [("not_an_image", 1, ("bad.png",))]
    assert [item.file_name for item in content.gallery] == names[1:]
    assert all(item.picture for item in content.gallery)
    assert "bad.png" in run_page(content).decode()
    assert run_content(str(output), storage.read_bytes, budget=0).gallery == ()
    assert content.steps[-1].name == "all"
    assert content.steps[-1].total_s == pytest.approx(sum(step.total_s for step in content.steps[:-1]))
    assert content.steps[-1].mean_ms == pytest.approx(sum(step.mean_ms for step in content.steps[:-1]))
    stages = Manifest.read(str(output)).stage_s
    assert content.total_s == stages["total"]
    assert sum(value for _, value in content.stages) == pytest.approx(stages["total"], abs=0.01)


def test_page_of_a_run_counts_from_a_score(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(6):
        # A red box with ever more black in it, and a green one in the last two.
        boxes = [((5, 5, 25, 25), pictures.RED), ((5, 7, 25, 7 + 3 * i), (0, 0, 0))]
        boxes += [((30, 5, 40, 15), pictures.GREEN)] * (i > 3)
        (tmp_path / "in" / f"{i}.png").write_bytes(pictures.encode(pictures.picture(45, 30, *boxes)))
    output, page = tmp_path / "out", tmp_path / "page.html"
    words = ["--model=tests.fake_detectors:colours", "--part_size=4"]
    assert main(["detect", f"--input={tmp_path / 'in'}", f"--output={output}", *words]) == 0
    content = run_content(str(output), storage.read_bytes, min_score=0.5)
    assert [(row.name, row.detections, row.images) for row in content.categories] == [("red", 4, 4), ("green", 2, 2)]
    assert content.categories[0].mean_score == pytest.approx((1 + 0.85 + 0.7 + 0.55) / 4)
    assert content.boxes_per_picture.series[0].counts == (0, 6)
    assert sum(content.score_bins.series[0].counts) == 8
    assert [item.caption for item in content.gallery][3:] == ["1 × red", "1 × green", "1 × green"]
    assert [row.detections for row in run_content(str(output), storage.read_bytes).categories] == [5, 2]
    assert main(["report", str(output), f"--output={page}"]) == 0
    assert "Counted are detections of a score from 0.3; 1 detection has a lower one." in page.read_text()
    assert main(["report", str(output), f"--output={page}", "--min_score=0.2", "--overwrite"]) == 0
    assert "Counted are" not in page.read_text()
