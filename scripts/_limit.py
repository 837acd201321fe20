"""What the machine can do at most: as many processes as cores that decode, resize and run the network, and no more.

python _limit.py LITERT_FORM LIST OUTPUT: LIST has one path a line, OUTPUT becomes JSON. Nothing is post-processed,
written or even kept: no job that does its work can be faster.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from ai_edge_litert.interpreter import Interpreter

from beam_jobs.detectors.litert_form import NETWORK, Form
from scripts._side_by_side import measure


def opened(folder: str) -> Callable[[str], None]:
    """What does a picture."""
    form = Form.read(Path(folder))
    network = Interpreter(str(Path(folder) / NETWORK), num_threads=1)
    network.allocate_tensors()
    place = network.get_input_details()[0]["index"]

    def run(path: str) -> None:
        picture = simplejpeg.decode_jpeg(Path(path).read_bytes())
        small, _ = form.prepared(picture)
        network.set_tensor(place, small[np.newaxis])
        network.invoke()

    return run


if __name__ == "__main__":
    form, listing, output = sys.argv[1:]
    measure(opened, [form], listing, output, processes=len(os.sched_getaffinity(0)), threads=1)
