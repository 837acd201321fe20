"""From a function of TensorFlow's to a TFLite model in float32, with built-in operators only."""

from __future__ import annotations

import tempfile
from typing import Any

from beam_jobs.detectors.tensorflow_runtime import tf


def to_tflite(function: Any) -> bytes:
    """The TFLite model of a `tf.function` with an input signature; its signature has the same names.

    The converter folds batch norms into the convolutions.

    Raises:
        Exception: it cannot be converted, of many kinds.
    """
    module = tf.Module()
    module.function = function
    with tempfile.TemporaryDirectory() as scratch:
        # Nodes with gradients of their own, such as swish, come from a graph whose gradients are not there any more.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, scratch, function.get_concrete_function(), options)
        model: bytes = tf.lite.TFLiteConverter.from_saved_model(scratch).convert()
    return model


def without_add_n(graph: Any) -> Any:
    """The GraphDef with sums of two as plain additions: XNNPACK knows no AddN, which runs in slower kernels."""
    changed = tf.compat.v1.GraphDef()
    changed.CopyFrom(graph)
    for node in changed.node:
        if node.op == "AddN" and node.attr["N"].i == 2:
            node.op = "AddV2"
            del node.attr["N"]
    return changed
