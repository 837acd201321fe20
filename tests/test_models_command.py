"""`beam-detect models`, and `detect --model` with what it fetches, with a real SavedModel from a real server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_jobs.cli.main import main
from beam_jobs.cli.progress import Transfer
from beam_jobs.detectors import download
from beam_jobs.detectors.cache import sha256_of
from beam_jobs.detectors.zoo import ZOO
from beam_jobs.formats.results import result_sources
from tests.model_server import ZOO_FILES, Fault, ModelServer, archive_of, serving
from tests.pictures import write_pictures
from tests.saved_models import build

D0 = "efficientdet_d0_coco17_tpu-32"
PATH = f"/20200711/{D0}.tar.gz"
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with serving() as server:
        server.files[PATH] = archive_of(ZOO_FILES)
        monkeypatch.setenv("BEAM_DETECT_MODEL_MIRROR", server.url)
        yield server


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The archive of a detector that TensorFlow can open."""
    folder = tmp_path_factory.mktemp("real")
    build(folder, "zoo")
    top = folder / "zoo"
    files = {f"saved_model/{p.relative_to(top)}": p.read_bytes() for p in top.rglob("*") if p.is_file()}
    return archive_of(files | {"pipeline.config": ZOO_FILES["pipeline.config"]}, f"{D0}/")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["models", *words])
    said = capsys.readouterr()
    return status, said.out, said.err


class TestList:
    @pytest.mark.parametrize("terminal", [True, False])
    def test_names_are_never_cut(self, terminal: bool, cache: Path) -> None:
        command = [sys.executable, "-P", "-m", "beam_jobs", "models"]
        environment = os.environ | {"COLUMNS": "20", "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        if not terminal:
            said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        else:
            ours, theirs = pty.openpty()
            process = subprocess.Popen(command, env=environment, stdout=theirs, stderr=theirs)
            os.close(theirs)
            said = ""
            with contextlib.suppress(OSError):  # the end of what a terminal gives
                while more := os.read(ours, 65536).decode():
                    said += more
            os.close(ours)
            assert process.wait() == 0
        lines = said.splitlines()
        assert [line.split(" ")[0] for line in lines] == ["NAME", "coco-ssd", *ZOO]
        assert lines[1].split() == ["coco-ssd", "-", "-", "default"]
        assert lines[3].split() == ["centernet_hg104_512x512_kpts_coco17_tpu-32", "76", "40.0", "kpts", "61.4"]
        assert lines[13].split() == [D0, "39", "33.6", "512x512"]
        assert lines[0].index("STATE") + len("cached") <= 80
        assert not cache.exists()

    def test_json(self, capsys: pytest.CaptureFixture[str], server: ModelServer) -> None:
        main(["models", "fetch", D0])
        capsys.readouterr()
        status, out, _ = run(capsys, "--json")
        rows = {row["name"]: row for row in json.loads(out)}
        assert (status, len(rows)) == (0, 42)
        assert rows[D0] == {
            "name": D0,
            "family": "EfficientDet",
            "input_size": "512x512",
            "speed_ms": 39,
            "box_map": 33.6,
            "masks_or_keypoints": None,
            "masks_or_keypoints_map": None,
            "urls": [f"{server.url}{PATH}"],
            "cached": True,
            "default": False,
        }
        assert [name for name, row in rows.items() if row["default"]] == ["coco-ssd"]
        assert [name for name, row in rows.items() if row["cached"]] == [D0]

    def test_it_needs_neither_tensorflow_nor_beam(self) -> None:
        code = (
            "import sys; from beam_jobs.cli.main import main; main(['models']);"
            "assert not {'tensorflow', 'apache_beam'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


class TestCache:
    def test_ctrl_c_ends_a_download(self, server: ModelServer) -> None:
        server.faults = [Fault("stall", after=100)]
        command = [sys.executable, "-P", "-m", "beam_jobs", "models", "fetch", D0]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as program:
            assert program.stderr is not None
            assert program.stderr.readline().startswith(f"fetching {D0} from ")
            program.send_signal(signal.SIGINT)
            assert program.stderr.read() == "beam-detect: stopped by SIGINT.\n"
        assert program.returncode == 130

    def test_fetched_verified_removed(
        self, capsys: pytest.CaptureFixture[str], server: ModelServer, cache: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "archive").write_bytes(server.files[PATH])
        folder = cache / "models" / D0 / D0
        status, out, err = run(capsys, "fetch", D0)
        assert (status, out) == (0, f"{D0}: {folder}, 0.1 MB, sha256 {sha256_of(tmp_path / 'archive')}\n")
        assert err == f"fetching {D0} from {server.url}{PATH} …\n"
        url = f"{server.url}/m.tar.gz"
        server.files["/m.tar.gz"] = server.files[PATH]
        assert run(capsys, "fetch", D0, url)[0] == 0
        assert len(server.asked_for()) == 2
        assert run(capsys)[1].splitlines()[-1].split() == [url, *"---", "cached"]
        assert run(capsys, "verify")[:2] == (0, f"{D0}: whole\n{url}: whole\n")
        (folder / "saved_model" / "saved_model.pb").write_bytes(b"grapH")
        status, out, _ = run(capsys, "verify")
        assert status == 1
        assert f"{D0}: damaged: {D0}/saved_model/saved_model.pb has the sha256 " in out
        assert run(capsys, "verify", url)[0] == 0
        assert run(capsys, "remove", D0, url)[:2] == (0, f"removed {D0}, 0.1 MB\nremoved {url}, 0.1 MB\n")
        assert run(capsys, "verify")[:2] == (0, f"There are no models in {cache}.\n")
        for action in ("verify", "remove"):
            status, _, err = run(capsys, action, D0)
            assert status == 2
            assert f"{D0} is not in the cache, {cache}: beam-detect models fetch {D0}" in err

    def test_an_unfinished_download_is_gone_on_with_or_removed(
        self, capsys: pytest.CaptureFixture[str], server: ModelServer, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(download, "PAUSES", (0.01,))
        broken_off = [Fault("cut", 60_000), Fault("status", code=403)]
        server.faults = list(broken_off)
        assert run(capsys, "fetch", D0)[0] == 2
        assert (cache / "models" / f".{D0}.part").stat().st_size == 60_000
        assert run(capsys, "fetch", D0)[0] == 0
        assert [range_ for _, range_ in server.asked_for()] == [None, "bytes=59999-", "bytes=59999-"]
        run(capsys, "remove", D0)
        server.faults = list(broken_off)
        assert run(capsys, "fetch", D0)[0] == 2
        assert run(capsys, "remove", D0)[1] == f"removed {D0}, 0.1 MB\n"
        assert [path.name for path in (cache / "models").iterdir()] == [f".{D0}.lock"]

    def test_a_pin(self, capsys: pytest.CaptureFixture[str], server: ModelServer, tmp_path: Path) -> None:
        (tmp_path / "archive").write_bytes(server.files[PATH])
        right, wrong = sha256_of(tmp_path / "archive"), "0" * 64
        status, _, err = run(capsys, "fetch", D0, "--sha256", wrong)
        assert status == 2
        assert f"its sha256 is {right}; --sha256 says {wrong}." in err
        assert run(capsys, "fetch", D0, "--sha256", right.upper())[0] == 0
        # What is in the cache is not what is asked for, either.
        assert run(capsys, "fetch", D0, "--sha256", wrong)[0] == 2
        assert run(capsys, "verify", D0)[0] == 0
        # A new one, on purpose, is what later ones must match.
        (tmp_path / "archive").write_bytes(archive_of({**ZOO_FILES, "new": b""}))
        server.files[PATH] = (tmp_path / "archive").read_bytes()
        assert run(capsys, "fetch", D0, "--sha256", sha256_of(tmp_path / "archive"))[0] == 0
        assert run(capsys, "remove", D0)[0] == run(capsys, "fetch", D0)[0] == run(capsys, "verify", D0)[0] == 0

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("fetch", "efficientdet_d0"), f"efficientdet_d0: did you mean {D0}?"),
            (("fetch", "yolo"), "yolo: there is no such model. `beam-detect models` lists them"),
            (("fetch", D0, "coco-ssd", "--sha256", "0" * 64), "--sha256 is of one model"),
            (("fetch", "coco-ssd", "--sha256", "0" * 64), "coco-ssd has the sha256 4c93ff1deb"),
            (("remove", "coco-ssd"), "coco-ssd is not in the cache"),
            (("remove", "../.."), "../..: there is no such model."),
            (("verify", "coco_ssd"), "coco_ssd: did you mean coco-ssd?"),
            (("show", "yolo"), "--model yolo: no such name, folder or module."),
            (("--jsno",), "There is no flag --jsno. Did you mean --json?"),
        ],
    )
    def test_refused(self, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str) -> None:
        status, _, err = run(capsys, *words)
        assert status == 2
        assert err.startswith(f"beam-detect: error: {said}")

    @pytest.mark.parametrize("words", [("list",), ("fetch",), ("fetch", D0, "--sha256", "abc")])
    def test_refused_by_the_parser(self, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(["models", *words])
        assert capsys.readouterr().err.startswith("beam-detect: error: ")


def test_progress_lines(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 10.0, 40.0, 80.0])
    with Transfer(lambda: next(times)) as transfer:
        for have in (0, 1_000_000, 40_000_000, 80_000_000):
            transfer(have, 120_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "40.0 of 120.0 MB, 1.0 MB/s, 1 min 20 s left",
        "80.0 of 120.0 MB, 1.0 MB/s, 40 s left",
    ]


class TestOpened:
    def test_show_fetches_and_opens(
        self, capsys: pytest.CaptureFixture[str], server: ModelServer, real: bytes, cache: Path
    ) -> None:
        server.files[PATH] = real
        status, out, _ = run(capsys, "show", D0, "--json")
        shown = json.loads(out)
        assert status == 0
        assert shown["name"] == D0
        assert shown["location"] == str(cache / "models" / D0 / D0 / "saved_model")
        assert shown["fetched_from"] == f"{server.url}{PATH}"
        assert shown["bytes"] > len(real) / 2
        assert len(shown["fingerprint"]) == 64
        assert shown["engine"] == "tensorflow"
        assert shown["input"] == "input_tensor uint8 [1, None, None, 3]"
        assert shown["batch"] == "1"
        assert "detection_boxes" in shown["outputs"]
        assert len(shown["classes"]) == 80
        assert 0 < shown["open_s"] < 300

    def test_a_worker_without_it_fetches_it_once(
        self,
        capsys: pytest.CaptureFixture[str],
        server: ModelServer,
        real: bytes,
        cache: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Two detector processes with a cache of their own stand for another host."""
        from beam_jobs.detectors import catalogue
        from beam_jobs.processes.pool import DetectorPool
        from beam_jobs.processes.work import PictureSettings

        server.files["/mine.tar.gz"] = real
        spec = catalogue.resolve(f"{server.url}/mine.tar.gz", label_map=None, threads=1)
        monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path / "worker"))
        cache.rename(tmp_path / "gone")
        pool = DetectorPool(spec, PictureSettings(), 2)
        try:
            assert pool.ready().engine == "tensorflow"
        finally:
            pool.close()
        assert server.asked_for() == [("/mine.tar.gz", None)] * 2
        assert (tmp_path / "worker" / "models" / spec.origin.entry / "mine" / "saved_model").is_dir()  # type: ignore[union-attr]

    @pytest.mark.slow
    def test_detect(self, capsys: pytest.CaptureFixture[str], server: ModelServer, real: bytes, tmp_path: Path) -> None:
        server.files[PATH] = real
        write_pictures(tmp_path / "in", 3)
        words = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--model", D0]
        assert main(["detect", *words]) == 0
        assert f"fetching {D0}" in capsys.readouterr().err
        manifest = json.loads((tmp_path / "out" / "run.json").read_text())
        assert manifest["model"]["name"] == D0
        assert manifest["counts"]["images"] == 3
        assert result_sources(str(tmp_path / "out"))


def test_show_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "show", "tests.fake_detectors:colours")
    assert status == 0
    assert "classes      3: 1 red, 2 green, 3 blue\n" in out
    assert "engine       python\n" in out
