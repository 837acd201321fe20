"""Makes the frozen form of a model: `python -m … WORK TARGET`, as `frozen_form` calls it.

The form is one graph with the API's names: functions inlined, only what the outputs need, and the result simplified by
TensorFlow's own optimizer. The weights are placeholders in it, and arrays beside it: as constants they would be folded
into each other, which changes the results in their last bits. And only those passes are made that do not look at the
machine: what fits its CPU or GPU (layouts, fused kernels) TensorFlow decides anew where the graph runs.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors import form_making
from beam_jobs.detectors.agreement import FROZEN, disagreement
from beam_jobs.detectors.base import DetectorSpec, Picture
from beam_jobs.detectors.frozen_form import GRAPH, WEIGHTS, FrozenGraph, Verdict
from beam_jobs.detectors.frozen_graph import import_graph
from beam_jobs.detectors.loaded_model import LoadedModel, first_line
from beam_jobs.detectors.tensorflow_detector import detector_of, open_original
from beam_jobs.detectors.tensorflow_runtime import tf

_PASSES = (
    "pruning",
    "function",
    "common_subgraph_elimination",
    "constfold",
    "arithmetic",
    "dependency",
    "constfold",
    "loop",
)


def make(spec: DetectorSpec, pictures: Sequence[Picture], target: Path) -> Verdict:
    """Writes the frozen form of `spec` to the folder `target`, if it finds in `pictures` what the original finds.

    Raises:
        UsageError: the original cannot be opened.
    """
    original = open_original(spec)
    try:
        graph, nodes, weights = freeze(original.model, f"frozen_{spec.fingerprint[:12]}_")
        frozen = detector_of(import_graph(graph, nodes.input, nodes.outputs, nodes.given(weights)), spec, "frozen")
        differs = disagreement(original, frozen, pictures, FROZEN)
    # Of any kind: TensorFlow's converter raises what it meets, and the original is there.
    except Exception as error:
        return Verdict(reason=f"it cannot be made: {type(error).__name__}: {first_line(error)}")
    if differs:
        return Verdict(reason=differs)
    (target / GRAPH).write_bytes(graph.SerializeToString(deterministic=True))
    np.savez(target / WEIGHTS, *weights)
    return Verdict(reason=None, graph=nodes)


def freeze(model: LoadedModel, prefix: str) -> tuple[Any, FrozenGraph, list[NDArray[Any]]]:
    """The GraphDef of a model, which of its nodes are fed and fetched, and the weights.

    Args:
        prefix: for the names of its functions, which must differ from those of all other models in a process.

    Raises:
        Exception: it cannot be frozen, of many kinds.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2_as_graph

    # Not lowered: loops and branches as functions are fewer nodes to import.
    function, graph = convert_variables_to_constants_v2_as_graph(model.function, lower_control_flow=False)
    (placeholder,) = function.inputs
    outputs = frozen_outputs(model, function)
    _name_outputs(graph, {key: outputs[key] for key in model.outputs})
    graph = tf.compat.v1.graph_util.extract_sub_graph(graph, list(model.outputs))
    variables = {tensor.op.name for tensor in model.function.graph.internal_captures if tensor.dtype == tf.resource}
    weights = _take_out(graph, variables)
    graph = _simplified(graph, model.outputs)
    _rename_functions(graph, prefix)
    left = [node.name for node in graph.node if node.name in weights]
    nodes = FrozenGraph(placeholder.op.name, model.outputs, tuple(left))
    return graph, nodes, [weights[name] for name in left]


def frozen_outputs(model: LoadedModel, function: Any) -> dict[str, Any]:
    """The output tensors of the model's function, after freezing, by name; also those that are not read."""
    # Both are in the order of the sorted keys.
    return dict(zip(sorted(model.function.structured_outputs), function.outputs, strict=True))


def _take_out(graph: Any, variables: Set[str]) -> dict[str, NDArray[Any]]:
    """The values of the constants that were variables, which become placeholders."""
    values = {}
    for node in graph.node:
        if node.op == "Const" and node.name in variables:
            values[node.name] = array = tf.make_ndarray(node.attr["value"].tensor)
            node.op = "Placeholder"
            del node.attr["value"]
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    return values


def _name_outputs(graph: Any, outputs: dict[str, Any]) -> None:
    taken = {node.name for node in graph.node}
    for key, tensor in outputs.items():
        if tensor.name == f"{key}:0":
            continue
        if key in taken:
            raise ValueError(f"its graph has another node {key}")
        node = graph.node.add(name=key, op="Identity", input=[tensor.name])
        node.attr["T"].type = tensor.dtype.as_datatype_enum


def _simplified(graph: Any, outputs: Sequence[str]) -> Any:
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
    from tensorflow.python.grappler import tf_optimizer

    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.optimizers.extend(_PASSES)
    config.graph_options.rewrite_options.meta_optimizer_iterations = 2
    whole = meta_graph_pb2.MetaGraphDef(graph_def=graph)
    # What must not be optimised away is named like that.
    whole.collection_def["train_op"].node_list.value.extend(outputs)
    return tf_optimizer.OptimizeGraph(config, whole)


def _rename_functions(graph: Any, prefix: str) -> None:
    functions = graph.library.function
    names = {function.signature.name: prefix + function.signature.name for function in functions}
    for function in functions:
        function.signature.name = names[function.signature.name]
    for node in itertools.chain(graph.node, *(function.node_def for function in functions)):
        node.op = names.get(node.op, node.op)
        for value in node.attr.values():
            for reference in [value.func] * value.HasField("func") + list(value.list.func):
                reference.name = names.get(reference.name, reference.name)


def main(work: Path, target: Path) -> None:
    """Makes the form that is ordered in `work`."""
    form_making.answer(make, work, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
