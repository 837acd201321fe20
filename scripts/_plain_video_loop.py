"""The loop that tutorials teach for a clip: a SavedModel, frame after frame, TensorFlow's default threads.

python _plain_video_loop.py SAVED_MODEL LIST OUTPUT: LIST has a clip's path, OUTPUT becomes JSON. Tutorials take
`cv2.VideoCapture`, which like PyAV has FFmpeg decode. It uses nothing of the job, and is not to be made better than
people write it.
"""

import json
import sys
import time
from pathlib import Path

import av
import tensorflow as tf


def main(saved_model: str, listing: str, output: str) -> None:
    """Detects on every frame; writes the seconds from the second call on."""
    model = tf.saved_model.load(saved_model)
    detect = model.signatures["serving_default"]
    start: float | None = None
    with av.open(Path(listing).read_text().strip()) as clip:
        for frame in clip.decode(video=0):
            outputs = detect(tf.convert_to_tensor(frame.to_ndarray(format="rgb24"))[tf.newaxis, ...])
            for name in ("boxes", "scores", "classes"):
                outputs[f"detection_{name}"].numpy()
            # The first call compiles what the others use: it belongs to the start-up.
            start = start or time.perf_counter()
    steady_s = time.perf_counter() - (start or 0.0)
    Path(output).write_text(json.dumps({"steady_s": steady_s, "found": []}))


if __name__ == "__main__":
    main(*sys.argv[1:])
