"""The best bare TensorFlow loop: some processes of some threads that decode and call a SavedModel, and do nothing else.

python _tensorflow_loop.py SAVED_MODEL LIST OUTPUT PROCESSES THREADS: LIST has one path a line, OUTPUT becomes JSON. One
picture a call. Nothing is selected, written or even kept: no job that calls the same model can be faster.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import simplejpeg

from scripts._side_by_side import measure


def opened(saved_model: str, threads: int) -> Callable[[str], None]:
    """What does a picture."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    detect = tf.saved_model.load(saved_model).signatures["serving_default"]

    def run(path: str) -> None:
        picture = simplejpeg.decode_jpeg(Path(path).read_bytes())
        outputs = detect(tf.convert_to_tensor(picture)[tf.newaxis])
        for name in ("boxes", "scores", "classes"):
            outputs[f"detection_{name}"].numpy()

    return run


if __name__ == "__main__":
    saved_model, listing, output, *numbers = sys.argv[1:]
    processes, threads = map(int, numbers)
    measure(opened, [saved_model, threads], listing, output, processes, threads)
