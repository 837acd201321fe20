"""What the machine can do at most: as many processes as cores that decode, resize and run the network, and no more.

python _limit.py LITERT_FORM LIST OUTPUT: LIST has one path a line, OUTPUT becomes JSON. Nothing is post-processed,
written or even kept: no job that does its work can be faster.
"""

import json
import os
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from ai_edge_litert.interpreter import Interpreter

from beam_jobs.detectors.litert_form import NETWORK, Form
from beam_jobs.processes.settings import process_settings


def work(folder: str, paths: list[str], barrier: Any) -> None:
    """Does its share, once all are ready."""
    form = Form.read(Path(folder))
    network = Interpreter(str(Path(folder) / NETWORK), num_threads=1)
    network.allocate_tensors()
    place = network.get_input_details()[0]["index"]

    def run(path: str) -> None:
        picture = simplejpeg.decode_jpeg(Path(path).read_bytes())
        small, _ = form.prepared(picture)
        network.set_tensor(place, small[np.newaxis])
        network.invoke()

    run(paths[0])
    barrier.wait()
    for path in paths:
        run(path)
    barrier.wait()


def main(folder: str, listing: str, output: str) -> None:
    """Runs the processes; writes the seconds from when all are ready to when all are done."""
    os.environ.update(process_settings(threads=1))  # for the processes; the job's have them, too
    paths = Path(listing).read_text().splitlines()
    count = len(os.sched_getaffinity(0))
    context = get_context("spawn")
    barrier = context.Barrier(count + 1)
    processes = [context.Process(target=work, args=(folder, paths[i::count], barrier)) for i in range(count)]
    for process in processes:
        process.start()
    barrier.wait()
    start = time.perf_counter()
    barrier.wait()
    steady_s = time.perf_counter() - start
    for process in processes:
        process.join()
    Path(output).write_text(json.dumps({"steady_s": steady_s, "found": []}))


if __name__ == "__main__":
    main(*sys.argv[1:])
