"""`--display`, on a virtual screen: a real window of a real run, and a look at its pixels."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
import psutil
import pytest
from PIL import ImageGrab

from beam_jobs.cli.main import main
from beam_jobs.imaging.decode import decode
from beam_jobs.processes.annotate import Annotation
from beam_jobs.processes.display import NEWEST, Display, Screen
from beam_jobs.runs.check import check_run
from tests.clips import make_clip
from tests.pictures import GREEN, RED, encode, picture, write_pictures

FAKE = "--model=tests.fake_detectors:colours"


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """The name of a virtual screen of 800x600 pixels."""
    pytest.importorskip("tkinter", reason="this Python has no Tk")
    if not shutil.which("Xvfb"):
        pytest.skip("needs a virtual screen: apt-get install xvfb")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL) as server:
        os.close(writer)
        with os.fdopen(reader) as said:
            name = f":{said.readline().strip()}"
        yield name
        server.kill()


def started(screen: str, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "beam_jobs", "detect", FAKE, "--display", *words]
    return subprocess.Popen(command, env={**os.environ, "DISPLAY": screen}, stderr=subprocess.PIPE, text=True)


def windows(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children()
    return [child for child in children if "beam_jobs.processes.display_window" in child.cmdline()]


def seen(screen: str, colours: Sequence[tuple[int, int, int]], seconds: float = 30) -> bool:
    """Whether all colours are somewhere on the screen, before the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pixels = np.asarray(ImageGrab.grab(xdisplay=screen).convert("RGB")).astype(int)
        if all((np.abs(pixels - colour).max(axis=2) < 40).sum() > 50 for colour in colours):
            return True
        time.sleep(0.05)
    return False


def test_frames_are_shown_until_the_window_is_closed(screen, tmp_path):
    make_clip(tmp_path / "in/clip.mp4", 40)
    process = started(screen, f"--input={tmp_path}/in", f"--output={tmp_path}/out")
    assert process.stderr is not None
    # The red square of the frame, and the frame that is drawn around it.
    assert seen(screen, [(255, 0, 0)])
    while "close the window" not in (line := process.stderr.readline()):
        assert line, "it ended, and the window with it"
    assert list(check_run(str(tmp_path / "out"))) == []
    (window,) = windows(process)
    window.terminate()
    assert process.wait(10) == 0
    assert len(list((tmp_path / "out").glob("images/*.parquet"))) == 1
    assert not (tmp_path / "out/annotated").exists()


def test_ctrl_c_at_the_last_picture_ends_a_run_that_is_done(screen, tmp_path):
    write_pictures(tmp_path / "in", 1)
    process = started(screen, f"--input={tmp_path}/in", f"--output={tmp_path}/out")
    assert process.stderr is not None
    while "close the window" not in (line := process.stderr.readline()):
        assert line, "it ended, and the window with it"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert process.stderr.read() == ""
    assert (tmp_path / "out/_SUCCESS").exists()


def test_a_window_that_is_closed_meanwhile_ends_nothing(screen, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(40):
        shown = picture(320, 240, ((20, 20, 120, 120), RED), ((180, 100, 300, 200), GREEN))
        (tmp_path / f"in/{number}.png").write_bytes(encode(shown))
    process = started(screen, f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--model=tests.fake_detectors:Slow")
    assert seen(screen, [RED, GREEN])
    (window,) = windows(process)
    window.terminate()
    assert process.wait(60) == 0
    assert list(check_run(str(tmp_path / "out"))) == []


def test_without_a_screen_it_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    write_pictures(tmp_path / "in", 1)
    assert main(["detect", f"--input={tmp_path}/in", f"--output={tmp_path}/out", FAKE, "--display"]) == 2
    assert "--display: no window can be opened here:" in capsys.readouterr().err
    assert not (tmp_path / "out/_plan").exists()


def test_it_is_for_this_machine(tmp_path, capsys):
    words = [f"--input={tmp_path}", f"--output={tmp_path}/out", FAKE, "--display", "--runner=PrismRunner"]
    assert main(["detect", *words]) == 2
    assert "leave --runner out" in capsys.readouterr().err


def test_large_pictures_are_shown_smaller_and_not_all_of_them(tmp_path):
    one = Screen(Display(str(tmp_path), Annotation()))
    assert one.wants()
    one.show("a\nb", np.zeros((2000, 3000, 3), np.uint8))
    assert not one.wants()
    title, _, encoded = (tmp_path / NEWEST).read_bytes().partition(b"\n")
    assert title == b"a b"
    assert decode(encoded).pixels.shape == (853, 1280, 3)
    Screen(Display(str(tmp_path / "gone"), Annotation())).show("a", np.zeros((2, 3, 3), np.uint8))
