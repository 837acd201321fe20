"""The best bare TensorFlow loop: some processes of some threads that decode and call a SavedModel, and do nothing else.

python _tensorflow_loop.py SAVED_MODEL LIST OUTPUT PROCESSES THREADS: LIST has one path a line, OUTPUT becomes JSON. One
picture a call. Nothing is selected, written or even kept: no job that calls the same model can be faster.
"""

import json
import os
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import simplejpeg

from beam_jobs.processes.settings import process_settings


def work(saved_model: str, paths: list[str], threads: int, barrier: Any) -> None:
    """Does its share, once all are ready."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    detect = tf.saved_model.load(saved_model).signatures["serving_default"]

    def run(path: str) -> None:
        picture = simplejpeg.decode_jpeg(Path(path).read_bytes())
        outputs = detect(tf.convert_to_tensor(picture)[tf.newaxis])
        for name in ("boxes", "scores", "classes"):
            outputs[f"detection_{name}"].numpy()

    run(paths[0])
    barrier.wait()
    for path in paths:
        run(path)
    barrier.wait()


def main(saved_model: str, listing: str, output: str, processes: int, threads: int) -> None:
    """Runs the processes; writes the seconds from when all are ready to when all are done."""
    os.environ.update(process_settings(threads))  # for the processes; the job's have them, too
    paths = Path(listing).read_text().splitlines()
    context = get_context("spawn")
    barrier = context.Barrier(processes + 1)
    shares = [(saved_model, paths[i::processes], threads, barrier) for i in range(processes)]
    children = [context.Process(target=work, args=share) for share in shares]
    for child in children:
        child.start()
    barrier.wait()
    start = time.perf_counter()
    barrier.wait()
    steady_s = time.perf_counter() - start
    for child in children:
        child.join()
    Path(output).write_text(json.dumps({"steady_s": steady_s, "found": []}))


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
