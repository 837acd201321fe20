"""What people write with Beam's RunInference: a SavedModel in a model handler, Pillow, pictures of any size.

python _run_inference.py SAVED_MODEL LIST OUTPUT: LIST has one path a line, OUTPUT becomes JSON. As `_plain_loop.py`, it
is what the benchmark compares the job with: it uses nothing of the job. Beam's own handler for TensorFlow loads through
Keras, which refuses SavedModels, so that a handler of one's own is what is left.
"""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.ml.inference.base import ModelHandler, RunInference
from PIL import Image


class SavedModelHandler(ModelHandler):
    """One picture a call: pictures of different sizes cannot share one."""

    def __init__(self, saved_model: str) -> None:
        self._saved_model = saved_model

    def load_model(self) -> Any:
        """The model, after a first call: that compiles what the others use, and belongs to the start-up."""
        model = tf.saved_model.load(self._saved_model)
        model.signatures["serving_default"](tf.zeros((1, 480, 640, 3), tf.uint8))
        Path(OUTPUT + ".start").write_text(str(time.time()))
        return model

    def run_inference(self, batch: Sequence[Any], model: Any, inference_args: Any = None) -> Iterable[dict[str, Any]]:
        """The detections of each."""
        detect = model.signatures["serving_default"]
        for path, picture in batch:
            outputs = detect(tf.convert_to_tensor(picture)[tf.newaxis, ...])
            count = int(outputs["num_detections"][0])
            found = {n: outputs[f"detection_{n}"][0, :count].numpy().tolist() for n in ("boxes", "scores", "classes")}
            yield {"path": path, "width": picture.shape[1], "height": picture.shape[0], **found}

    def batch_elements_kwargs(self) -> dict[str, Any]:
        """One at a time."""
        return {"max_batch_size": 1}


def decode(path: str) -> tuple[str, Any]:
    """The picture at a path."""
    return path, np.asarray(Image.open(path).convert("RGB"))


def main(saved_model: str, listing: str, output: str) -> None:
    """Detects on every picture of the list; writes what was found, and the seconds since the model was open."""
    paths = Path(listing).read_text().splitlines()
    found = Path(output + ".found")
    with beam.Pipeline() as pipeline:
        _ = (
            pipeline
            | beam.Create(paths)
            | beam.Reshuffle()
            | beam.Map(decode)
            | RunInference(SavedModelHandler(saved_model))
            | beam.Map(json.dumps)
            | beam.io.WriteToText(str(found), shard_name_template="")
        )
    steady_s = time.time() - float(Path(output + ".start").read_text())
    rows = [json.loads(line) for line in found.read_text().splitlines()]
    Path(output).write_text(json.dumps({"steady_s": steady_s, "found": rows}))


if __name__ == "__main__":
    OUTPUT = sys.argv[3]
    main(*sys.argv[1:])
