"""The loop that tutorials teach: a SavedModel, Pillow, one picture a call, TensorFlow's default threads.

python _plain_loop.py SAVED_MODEL LIST OUTPUT: LIST has one path a line, OUTPUT becomes JSON. It is what the benchmark
compares the job with, so it uses nothing of the job and is not to be made better than people write it.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image


def main(saved_model: str, listing: str, output: str) -> None:
    """Detects on every picture of the list; writes what was found, and the seconds from the second call on."""
    paths = Path(listing).read_text().splitlines()
    model = tf.saved_model.load(saved_model)
    detect = model.signatures["serving_default"]

    def detect_one(path: str) -> dict[str, Any]:
        picture = np.asarray(Image.open(path).convert("RGB"))
        outputs = detect(tf.convert_to_tensor(picture)[tf.newaxis, ...])
        count = int(outputs["num_detections"][0])
        found = {
            name: outputs[f"detection_{name}"][0, :count].numpy().tolist() for name in ("boxes", "scores", "classes")
        }
        return {"path": path, "width": picture.shape[1], "height": picture.shape[0], **found}

    # The first call compiles what the others use: it belongs to the start-up.
    detect_one(paths[0])
    start = time.perf_counter()
    found = [detect_one(path) for path in paths]
    steady_s = time.perf_counter() - start
    Path(output).write_text(json.dumps({"steady_s": steady_s, "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
