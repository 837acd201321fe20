"""`--display`: what is detected on, with its boxes, in a window while the job goes on.

Detector processes write the newest picture to a file, and the window looks at that. So nobody waits for another: of
what comes too fast for the eye, or for the window, most is never shown.

The window is Tk's, which comes with most Pythons, in a process of its own: it needs the main thread of one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from beam_jobs.errors import UsageError
from beam_jobs.imaging.decode import encode
from beam_jobs.processes.annotate import Annotation

#: Pixels of the longer side of what is shown, at most.
MAX_SIDE = 1280
#: Pictures that are written for the window, a second, at most.
_RATE = 30
#: The file, below the folder that the processes share.
NEWEST = "newest"
#: What the window says when it is open.
OPEN = "open"


@dataclass(frozen=True, slots=True)
class Display:
    """Where pictures for the window go, and what is drawn on them."""

    folder: str
    annotation: Annotation


class Screen:
    """A detector process's side."""

    def __init__(self, display: Display) -> None:
        self._folder = Path(display.folder)
        #: What is drawn.
        self.annotation = display.annotation
        self._shown_at = 0.0

    def wants(self) -> bool:
        """Whether it is time for another picture."""
        return time.monotonic() >= self._shown_at + 1 / _RATE

    def show(self, title: str, pixels: NDArray[np.uint8]) -> None:
        """Shows a picture, uint8 [height, width, 3], RGB. A window that is gone is no error."""
        image = Image.fromarray(pixels)
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
        half = self._folder / f"{NEWEST}-{os.getpid()}"
        try:
            half.write_bytes(title.encode(errors="replace").replace(b"\n", b" ") + b"\n" + _jpeg(image))
            half.replace(self._folder / NEWEST)
        except OSError:
            pass
        self._shown_at = time.monotonic()


class Window:
    """The window, as its own process. A context manager: at the end it is closed.

    Raises:
        UsageError: there is no screen, or no Tk.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="beam-detect-display-")
        self.folder = self._folder.name
        command = [sys.executable, "-P", "-m", "beam_jobs.processes.display_window", self.folder]
        path = os.pathsep.join(each for each in sys.path if each)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        if said != OPEN:
            self.close()
            raise UsageError(f"--display: no window can be opened here: {said or 'it ended'}. Leave it out.")

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Nobody has closed it yet."""
        return self._process.poll() is None

    def wait(self) -> None:
        """Waits until somebody closes it."""
        self._process.wait()

    def end(self) -> None:
        """Ends what is waited for, without waiting for it: a signal's handler may call it."""
        self._process.kill()

    def close(self) -> None:
        """Closes it."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()


def _jpeg(image: Image.Image) -> bytes:
    return encode(np.asarray(image), "JPEG")
