"""The window of `--display`: python -m beam_jobs.processes.display_window FOLDER. Escape, q or its button close it."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from beam_jobs.processes.display import NEWEST, OPEN
from beam_jobs.processes.parent import end_with_parent

#: How often it looks for another picture, in milliseconds.
_LOOK_MS = 15
_TITLE = "beam-detect"
#: What it is before the first picture.
_SIZE = "640x360"


def main(folder: str) -> None:
    """Shows what comes, until somebody closes it.

    Raises:
        ImportError: this Python has no Tk.
        tkinter.TclError: there is no screen.
    """
    import tkinter

    from PIL import ImageTk

    window = tkinter.Tk(className=_TITLE)
    window.title(f"{_TITLE}: opening the detector …")
    window.geometry(_SIZE)
    window.configure(background="black")
    label = tkinter.Label(window, borderwidth=0, background="black")
    label.pack(expand=True)
    for key in ("<Escape>", "q"):
        window.bind(key, lambda _: window.destroy())
    newest = Path(folder) / NEWEST
    seen = 0
    held: list[ImageTk.PhotoImage] = []  # Tk holds none itself

    def look() -> None:
        nonlocal seen
        try:
            with newest.open("rb") as file:
                number = os.fstat(file.fileno()).st_mtime_ns
                if number != seen:
                    seen = number
                    title, _, encoded = file.read().partition(b"\n")
                    image = Image.open(io.BytesIO(encoded))
                    held[:] = [ImageTk.PhotoImage(image)]
                    label.configure(image=held[0])
                    window.geometry(f"{image.width}x{image.height}")
                    window.title(title.decode(errors="replace"))
        except (OSError, UnidentifiedImageError):
            pass
        window.after(_LOOK_MS, look)

    look()
    window.update()
    print(OPEN, flush=True)
    window.mainloop()


if __name__ == "__main__":
    end_with_parent()
    try:
        main(sys.argv[1])
    except Exception as error:  # no Tk, or no screen: the parent reads the first line
        sys.exit(f"{str(error).strip().splitlines()[0]} ({type(error).__name__})")
