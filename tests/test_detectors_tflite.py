"""TFLite detectors: what is read from a file, what they find, and what is refused."""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from beam_jobs.detectors import catalogue, open_detector
from beam_jobs.detectors.base import Detector, DetectorSpec
from beam_jobs.detectors.resize import resize_bilinear
from beam_jobs.detectors.tflite_files import parse_labels
from beam_jobs.detectors.tflite_input import input_of
from beam_jobs.detectors.tflite_model import Normalisation, TfliteTensor, read_model
from beam_jobs.errors import UsageError
from beam_jobs.formats.label_map import COCO_CATEGORIES
from beam_jobs.records import Detections
from tests import tflite_models
from tests.tflite_models import CELL, HEIGHT, LABELS, WIDTH, with_files, with_metadata

ITEM = 'item {\n  id: 7\n  name: "buoy"\n}\n'


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tflite_models.build_all(folder)
    return folder


def resolve(model: Path, label_map: Path | None = None) -> DetectorSpec:
    return catalogue.resolve(str(model), label_map=None if label_map is None else str(label_map), threads=1)


def open_file(file: Path) -> Detector:
    return open_detector(DetectorSpec("tflite", file.stem, str(file), "0" * 64, {}))


def cells(seed: int, times: int = 1) -> NDArray[np.uint8]:
    """Cells of one colour each, as the networks see them: [32 * times, 48 * times, 3]."""
    random = np.random.default_rng(seed)
    colours = random.integers(0, 256, (HEIGHT // CELL, WIDTH // CELL, 3), np.uint8)
    return colours.repeat(CELL * times, 0).repeat(CELL * times, 1)


def expected(picture: NDArray[np.uint8]) -> Detections:
    """What the float network and the operator give for `cells(seed)`, in numpy.

    Decoding is the API's `faster_rcnn_box_coder`; then the best class of each anchor, and suppression over all classes.
    """
    to_box, to_scores = tflite_models.weights()
    values = (picture[::CELL, ::CELL].reshape(-1, 3) - np.float32(127.5)) / np.float32(127.5)
    scores = 1 / (1 + np.exp(-values @ to_scores))[:, 1:]  # without the background
    encodings = values @ to_box / np.array(tflite_models.BOX_SCALES)
    centres, sizes = np.split(tflite_models.anchors(), 2, 1)
    centres = centres + encodings[:, :2] * sizes
    sizes = sizes * np.exp(encodings[:, 2:])
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)[:, [1, 0, 3, 2]] * ([WIDTH, HEIGHT] * 2)
    kept: list[int] = []
    for i in np.argsort(-scores.max(1), kind="stable").tolist():
        is_free = all(_iou(boxes[i], boxes[j]) <= tflite_models.IOU_THRESHOLD for j in kept)
        if scores[i].max() >= tflite_models.SCORE_THRESHOLD and is_free and len(kept) < tflite_models.K:
            kept.append(i)
    ids = scores[kept].argmax(1) + 1
    return Detections(boxes[kept].astype(np.float32), scores[kept].max(1).astype(np.float32), ids.astype(np.int32))


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = np.prod(np.clip(high - low, 0, None))
    return float(both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both))


class TestDetections:
    @pytest.mark.parametrize("name", ["float", "reversed", "metadata"])
    def test_they_are_those_of_the_network_and_the_operator(self, models: Path, name: str) -> None:
        detector = open_file(models / f"{name}.tflite")
        for seed in range(5):
            (found,) = detector.detect([cells(seed)])
            wanted = expected(cells(seed))
            assert len(found) == len(wanted) > 2
            assert_array_equal(found.category_ids, wanted.category_ids)
            assert_allclose(found.scores, wanted.scores, atol=1e-5)
            assert_allclose(found.boxes, wanted.boxes, atol=1e-3)

    @pytest.mark.parametrize("name", ["uint8", "int8"])
    def test_quantised_ones_find_the_same_but_for_their_steps(self, models: Path, name: str) -> None:
        quantised, exact = open_file(models / f"{name}.tflite"), open_file(models / "float.tflite")
        pictures = [cells(seed) for seed in range(5)]
        for found, wanted in zip(quantised.detect(pictures), exact.detect(pictures), strict=True):
            assert len(wanted) > 2
            for box, score, category_id in zip(wanted.boxes, wanted.scores, wanted.category_ids, strict=True):
                near = np.abs(found.boxes - box).max(1) < 0.5
                assert (near & (found.category_ids == category_id) & (np.abs(found.scores - score) < 0.02)).sum() == 1

    def test_each_picture_has_boxes_in_its_own_pixels(self, models: Path) -> None:
        detector = open_file(models / "float.tflite")
        small, large = detector.detect([cells(3), cells(3, times=4)])
        assert_allclose(large.boxes, 4 * small.boxes, rtol=1e-4)
        assert_array_equal(large.scores, small.scores)

    def test_the_order_of_outputs_does_not_matter(self, models: Path, tmp_path: Path) -> None:
        data = (models / "float.tflite").read_bytes()
        outputs = [tensor.index for tensor in read_model(data).outputs]
        written = struct.pack("<5i", 4, *outputs)
        assert data.count(written) == 1
        wanted = expected(cells(1))
        for order in itertools.permutations(outputs):
            file = tmp_path / "model.tflite"
            file.write_bytes(data.replace(written, struct.pack("<5i", 4, *order)))
            (found,) = open_file(file).detect([cells(1)])
            assert_array_equal(found.category_ids, wanted.category_ids)
            assert_allclose(found.boxes, wanted.boxes, atol=1e-3)

    def test_rows_past_the_count_are_not_read(self, models: Path) -> None:
        detector = open_file(models / "float.tflite")
        # The operator leaves there what the memory held: rows of the picture before, or no numbers at all.
        full, nothing, again = detector.detect([cells(1), np.zeros((HEIGHT, WIDTH, 3), np.uint8), cells(1)])
        assert (len(full), len(nothing)) == (len(again), 0)
        assert_array_equal(full.boxes, again.boxes)

    @pytest.mark.model
    @pytest.mark.slow
    def test_the_real_coco_ssd_finds_what_its_saved_model_finds(self, tmp_path: Path) -> None:
        skimage_data = pytest.importorskip("skimage.data")
        reference = catalogue.resolve("coco-ssd", label_map=None, threads=1, engine="tensorflow")
        file = tflite_models.build_coco_ssd(Path(reference.location), tmp_path)
        lines = [COCO_CATEGORIES.get(i, "???") for i in range(1, 91)]
        file.write_bytes(with_files(file.read_bytes(), {"labels.txt": "\n".join(lines)}))
        spec = resolve(file)
        assert spec.categories == reference.categories
        pictures = [skimage_data.astronaut(), skimage_data.chelsea(), skimage_data.coffee()]
        for found, wanted in zip(
            open_detector(spec).detect(pictures), open_detector(reference).detect(pictures), strict=True
        ):
            sure = int((wanted.scores >= 0.3).sum())
            assert sure >= 1
            assert_array_equal(found.category_ids[:sure], wanted.category_ids[:sure])
            assert_allclose(found.scores[:sure], wanted.scores[:sure], atol=1e-4)
            assert_allclose(found.boxes[:sure], wanted.boxes[:sure], atol=0.1)


def test_resizing_is_the_apis(models: Path) -> None:
    apis = np.load(models / "resized.npz").values()
    for ((height, width), size), wanted in zip(tflite_models.RESIZED, apis, strict=True):
        assert_allclose(resize_bilinear(tflite_models.noise(height, width), *size), wanted, atol=1e-4)


class TestPixels:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("float", "(pixel - 127.5) / 127.5, assumed, as for the API's SSD MobileNets: the file does not say"),
            ("metadata", "(pixel - 0) / 255, by its metadata"),
            ("uint8", "as they are"),
            ("int8", "pixel - 128"),
        ],
    )
    def test_what_it_says_of_itself(self, models: Path, name: str, said: str) -> None:
        info = open_file(models / f"{name}.tflite").info
        assert info.engine == "litert"
        assert info.details["pixels"] == said
        assert info.details["threads"] == "1"
        dtype = name if name.endswith("int8") else "float32"
        assert info.details["input"] == f"serving_default_input:0 {dtype} [1, 32, 48, 3]"

    def test_quantisation_is_applied_to_what_the_metadata_say(self, models: Path, tmp_path: Path) -> None:
        # Pixels from 0 to 1, in an input that has steps for -1 to 1: they take the upper half of its levels.
        file = tmp_path / "upper_half.tflite"
        file.write_bytes(with_metadata((models / "uint8.tflite").read_bytes(), [0], [255]))
        upper_half = open_file(file)
        assert "(pixel - 0) / 255, by its metadata; scale 0.00784" in upper_half.info.details["pixels"]
        (tensor,) = read_model(file.read_bytes()).inputs
        assert tensor.quantisation is not None
        halves = cells(4) // 2
        levels = (halves + tensor.quantisation[1]).astype(np.uint8)
        (found,), (wanted,) = upper_half.detect([halves * 2]), open_file(models / "uint8.tflite").detect([levels])
        assert len(found) > 0
        assert_array_equal(found.boxes, wanted.boxes)

    @pytest.mark.parametrize(
        ("dtype", "quantisation", "levels"),
        [
            ("uint8", None, [0, 100, 255]),
            ("uint8", (1 / 128, 128), [0, 100, 255]),  # TF1's quantised training
            ("uint8", (1 / 127.5, 127), [0, 100, 255]),
            ("uint8", (1 / 255, 0), [0, 100, 255]),
            ("uint8", (1.0, 0), [0, 100, 255]),
            ("int8", (1 / 127.5, -1), [-128, -28, 127]),
            ("int8", (1.0, -128), [-128, -28, 127]),
            ("int8", (0.02, 5), [-45, -6, 55]),  # -1, -0.216 and 1 in its steps
        ],
    )
    def test_an_integer_inputs_range_says_what_it_takes(
        self, dtype: str, quantisation: tuple[float, int] | None, levels: list[int]
    ) -> None:
        takes = input_of(TfliteTensor(0, "image", dtype, (1, 1, 1, 3), quantisation), None)
        given = takes.tensor_of(np.array([[[0, 100, 255]]], np.uint8))
        assert (given.dtype.name, given.ravel().tolist()) == (dtype, levels)

    @pytest.mark.parametrize(
        ("dtype", "shape", "normalisation", "said"),
        [
            ("float16", (1, 2, 2, 3), None, "^$"),
            ("float32", (1, -1, -1, 3), None, "^$"),
            ("float32", (8, 2, 2, 3), None, "^$"),
            ("int8", (1, 2, 2, 3), None, "its int8 input has no scale"),
            ("float32", (1, 2, 2, 3), ((0.0,), (0.0,)), "its metadata give no usable mean and std"),
            ("float32", (1, 2, 2, 3), ((0.0, 1.0), (1.0,)), "its metadata give no usable mean and std"),
        ],
    )
    def test_what_cannot_take_pictures(
        self, dtype: str, shape: tuple[int, ...], normalisation: Normalisation | None, said: str
    ) -> None:
        with pytest.raises(ValueError, match=said):
            input_of(TfliteTensor(0, "image", dtype, shape, None), normalisation)

    def test_each_channel_may_have_its_own(self, models: Path, tmp_path: Path) -> None:
        file = tmp_path / "channels.tflite"
        file.write_bytes(with_metadata((models / "float.tflite").read_bytes(), [127.5, 0, 127.5], [127.5, 255, 127.5]))
        picture = cells(2)
        shifted = picture.copy()
        shifted[..., 1] = picture[..., 1] // 2 + 128  # from -1 to 1 that is what 0 to 1 is for the channel above
        (found,), (wanted,) = open_file(file).detect([picture]), open_file(models / "float.tflite").detect([shifted])
        assert_array_equal(found.category_ids, wanted.category_ids)
        assert_allclose(found.boxes, wanted.boxes, atol=0.1)


class TestFiles:
    def test_a_file_and_the_folder_that_holds_it_are_the_same_detector(self, models: Path, tmp_path: Path) -> None:
        file = tmp_path / "boats.tflite"
        file.write_bytes((models / "metadata.tflite").read_bytes())
        spec = resolve(file)
        assert spec == resolve(tmp_path)
        assert (spec.kind, spec.name, spec.location) == ("tflite", "boats", str(file))
        assert spec.fingerprint == hashlib.sha256(file.read_bytes()).hexdigest()
        assert spec.categories == {1: "red", 2: "green", 3: "blue"}

    def test_the_content_says_what_it_is(self, models: Path, tmp_path: Path) -> None:
        (tmp_path / "detector.bin").write_bytes((models / "float.tflite").read_bytes())
        assert resolve(tmp_path / "detector.bin").kind == "tflite"
        (tmp_path / "other.tflite").write_bytes(b"weights of something else")
        with pytest.raises(UsageError, match=r"other\.tflite is not a TFLite model: it does not have TFL3"):
            resolve(tmp_path / "other.tflite")

    def test_several_in_a_folder_need_a_choice(self, models: Path) -> None:
        with pytest.raises(UsageError, match=r"several TFLite files \(classifier\.tflite, .*: name one of them"):
            resolve(models)

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            (
                "classifier",
                r"does not have the operator TFLite_Detection_PostProcess; .*outputs are \S+ float32 \[1, 3\]",
            ),
            ("no_postprocess", r"does not have the operator.*float32 \[1, 24, 4\]"),
            ("grey", r"inputs are \S+ float32 \[1, 32, 48, 1\]"),
        ],
    )
    def test_what_is_not_a_detector_is_refused(self, models: Path, name: str, found: str) -> None:
        with pytest.raises(
            UsageError, match=rf"{name}\.tflite is not a detector: .*{found}.*A TFLite detector has one"
        ):
            open_file(models / f"{name}.tflite")

    def test_what_is_cut_off_is_refused_early_and_late(self, models: Path, tmp_path: Path) -> None:
        whole = (models / "metadata.tflite").read_bytes()
        for size in (*range(8, len(whole), 101), len(whole) - 1):
            file = tmp_path / "cut.tflite"
            file.write_bytes(whole[:size])
            with pytest.raises(UsageError, match="cut off"):
                resolve(file)
            if size < whole.index(b"PK"):
                with pytest.raises(UsageError, match=r"cut\.tflite is cut off or damaged: the file ends at byte"):
                    open_file(file)


class TestLabels:
    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("cat\ndog\n", {1: "cat", 2: "dog"}),
            ("???\r\ncat\r\n???\r\ndog\r\n", {1: "cat", 3: "dog"}),
            ("background\ncat", {1: "cat"}),
            ("cat\n\n???\ndog\n\n", {1: "cat", 4: "dog"}),
            ("0  cat\n3  dog\n", {1: "cat", 4: "dog"}),
            ("0: cat\n1: dog\n", {1: "cat", 2: "dog"}),
            ("1 euro\n2 euro\n", {1: "1 euro", 2: "2 euro"}),
            ("0 euro\n0 cent\n", {1: "0 euro", 2: "0 cent"}),
            ("???\n\n", {}),
        ],
    )
    def test_lines(self, text: str, names: dict[int, str]) -> None:
        assert parse_labels(text) == names

    def test_cocos_90_lines_give_cocos_ids(self) -> None:
        lines = [COCO_CATEGORIES.get(i, "???") for i in range(1, 91)]
        assert parse_labels("\n".join(lines)) == COCO_CATEGORIES
        assert parse_labels("\n".join(["???", *lines])) == COCO_CATEGORIES

    @pytest.fixture
    def model(self, models: Path, tmp_path: Path) -> Path:
        file = tmp_path / "boats.tflite"
        file.write_bytes((models / "float.tflite").read_bytes())
        return file

    @pytest.mark.parametrize("name", ["labels.txt", "labelmap.txt", "boats.txt"])
    def test_beside(self, model: Path, name: str) -> None:
        assert resolve(model).categories == {}
        model.with_name(name).write_text(LABELS)
        assert resolve(model).categories == {1: "red", 2: "green", 3: "blue"}

    def test_a_label_map_beside(self, model: Path) -> None:
        model.with_name("any.pbtxt").write_text(ITEM)
        assert resolve(model).categories == {7: "buoy"}

    def test_several_beside_need_a_choice(self, model: Path) -> None:
        for name in ("labels.txt", "labelmap.txt"):
            model.with_name(name).write_text(LABELS)
        with pytest.raises(UsageError, match=r"\(labels\.txt, labelmap\.txt\): choose one with --label_map"):
            resolve(model)
        assert len(resolve(model, model.with_name("labels.txt")).categories) == 3
        model.with_name("boats.txt").write_text("boat\n")  # the model's own
        assert resolve(model).categories == {1: "boat"}

    def test_inside_wins_over_beside_and_the_flag_over_both(self, model: Path) -> None:
        model.write_bytes(with_files(model.read_bytes(), {"anything.txt": "raft\n"}))
        model.with_name("labels.txt").write_text(LABELS)
        model.with_name("mine.pbtxt").write_text(ITEM)
        model.with_name("mine.txt").write_text(ITEM)  # some call label maps so
        assert resolve(model).categories == {1: "raft"}
        assert resolve(model, model.with_name("labels.txt")).categories == {1: "red", 2: "green", 3: "blue"}
        for name in ("mine.pbtxt", "mine.txt"):
            assert resolve(model, model.with_name(name)).categories == {7: "buoy"}

    def test_metadata_say_which_of_several_inside(self, model: Path) -> None:
        plain = model.read_bytes()
        files = {"licence.txt": "free\n", "names.txt": LABELS}
        model.write_bytes(with_files(plain, files))
        with pytest.raises(UsageError, match=r"several text files inside it \(licence\.txt, names\.txt\)"):
            resolve(model)
        model.write_bytes(with_files(with_metadata(plain, [127.5], [127.5], ["names.txt"]), files))
        assert resolve(model).categories == {1: "red", 2: "green", 3: "blue"}

    def test_unreadable_ones(self, model: Path) -> None:
        model.with_name("labels.txt").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UsageError, match=r"labels\.txt names no class: it must be UTF-8 text"):
            resolve(model)


def test_a_job_needs_no_tensorflow_and_gives_the_same_bytes_on_any_number_of_processes(
    models: Path, tmp_path: Path
) -> None:
    poison = tmp_path / "poison"
    (poison / "tensorflow").mkdir(parents=True)
    (poison / "tensorflow" / "__init__.py").write_text("raise ImportError('TensorFlow was imported')\n")
    (tmp_path / "in").mkdir()
    for seed in range(8):
        Image.fromarray(cells(seed, times=2)).save(tmp_path / "in" / f"{seed}.png")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(poison), str(Path(__file__).parents[1])])}
    digests = []
    for workers in ("1", "2"):
        output = tmp_path / workers
        command = [sys.executable, "-P", "-m", "beam_jobs", "detect", f"--input={tmp_path / 'in'}"]
        command += [f"--model={models / 'metadata.tflite'}", f"--output={output}", f"--workers={workers}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        files = [path for table in ("images", "detections", "coco") for path in sorted((output / table).iterdir())]
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
        assert set(pd.read_parquet(output / "detections").category) == {"red", "green", "blue"}
    assert digests[0] == digests[1]
