"""Frozen graphs, `.pb` files with the weights as constants: how TF1's Object Detection API exported detectors.

Source: `exporter.py` of the API, which names the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from beam_jobs.detectors import api_outputs
from beam_jobs.detectors.loaded_model import NEEDED, LoadedModel, first_line, outputs_of, refusal
from beam_jobs.detectors.model_input import read_input
from beam_jobs.detectors.tensorflow_runtime import tf
from beam_jobs.errors import UsageError

_INPUTS = ("image_tensor", "encoded_image_string_tensor", "tf_example")
_NEEDED = f"{NEEDED}; in a frozen graph they are nodes of these names, and the input is {' or '.join(_INPUTS)}"
_SHOWN = 8


def load_frozen_graph(location: str) -> LoadedModel:
    """Loads the file `location`.

    Raises:
        UsageError: it cannot be loaded, or is not a detector's.
    """
    try:
        graph = read_graph(Path(location))
    except (OSError, DecodeError) as error:
        raise UsageError(
            f"{location} cannot be read as a frozen graph: {first_line(error)}. It may be truncated or something else."
        ) from error
    names = {node.name: node for node in graph.node}
    given = [name for name in _INPUTS if name in names]
    if len(given) != 1 or not all(key in names for key in api_outputs.REQUIRED):
        raise refusal(location, _described(graph), _NEEDED)
    try:
        return import_graph(graph, given[0], outputs_of(names))
    except (ValueError, tf.errors.OpError) as error:
        raise UsageError(f"{location} cannot be loaded as a frozen graph: {first_line(error)}.") from error


def read_graph(path: Path) -> Any:
    """The GraphDef in a file.

    Raises:
        OSError, DecodeError: it cannot be read, or is broken.
    """
    return tf.compat.v1.GraphDef.FromString(path.read_bytes())


def import_graph(
    graph: Any, name: str, outputs: tuple[str, ...], weights: Mapping[str, NDArray[Any]] | None = None
) -> LoadedModel:
    """A GraphDef whose input is the node `name` and whose outputs are the nodes `outputs`.

    Args:
        weights: what stands for other placeholders, by their names.

    Raises:
        ValueError: the graph cannot be imported, or its input is no detector's.
    """
    placeholder = next(node for node in graph.node if node.name == name)
    shape = tf.TensorShape(placeholder.attr["shape"].shape)
    spec = tf.TensorSpec(shape, tf.as_dtype(placeholder.attr["dtype"].type), name)
    takes = read_input(name, spec)
    if placeholder.op != "Placeholder" or takes is None:
        raise ValueError(f"its input {name} is a {placeholder.op}, {spec.dtype.name} {shape}")

    _do_not_wait_for(graph, {name, *(weights or {})})
    constants = {key: tf.constant(array) for key, array in (weights or {}).items()}

    def imported(tensor: Any) -> Mapping[str, Any]:
        given = {key: tf.convert_to_tensor(constant) for key, constant in constants.items()} | {name: tensor}
        fetched = tf.graph_util.import_graph_def(graph, given, [f"{key}:0" for key in outputs], name="")
        return dict(zip(outputs, fetched, strict=True))

    function = tf.compat.v1.wrap_function(imported, [spec])
    return LoadedModel(function, takes, outputs, function)


def _do_not_wait_for(graph: Any, fed: Set[str]) -> None:
    """Drops control edges from what is fed: for them the import would keep its placeholders, which nobody feeds."""
    for node in graph.node:
        kept = [edge for edge in node.input if not (edge.startswith("^") and edge[1:] in fed)]
        if len(kept) < len(node.input):
            node.input[:] = kept


def _described(graph: Any) -> str:
    inputs = [node.name for node in graph.node if node.op == "Placeholder"]
    used = {edge.removeprefix("^").split(":")[0] for node in graph.node for edge in node.input}
    ends = [node.name for node in graph.node if node.name not in used and node.op not in ("Const", "NoOp")]
    return f"its inputs are {_listed(inputs)}; its outputs are {_listed(ends)}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "none") + more
