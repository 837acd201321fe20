"""Cutting a detector's graph: the network alone, without the API's own resizing before it.

In a graph of the API, as it is frozen, all that comes later depends on two tensors only: the pictures after resizing,
padding and normalising, and their true sizes within the padding (`exporter_lib_v2`: `_preprocess_input`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

from beam_jobs.detectors.resizing import Size
from beam_jobs.detectors.tensorflow_runtime import tf


@dataclass(frozen=True, slots=True)
class Cut:
    """The nodes that a graph is cut at.

    Args:
        picture: gives the pictures, float32 [N, height, width, 3].
        true_shape: gives their sizes, int32 [N, 3]; None where nothing depends on them.
    """

    picture: str
    true_shape: str | None


def find_cut(graph: Any, source: Any, outputs: Sequence[Any], size: Size) -> Cut | None:
    """Where a graph can be cut, as near to its input as may be; None where it cannot.

    Args:
        graph: a tf.Graph.
        source: its input's operation.
        outputs: the tensors that are wanted of it.
        size: of the network's input.
    """
    ops = [op for op in graph.get_operations() if len(op.outputs) == 1]
    shapes = {op for op in ops if op.outputs[0].dtype == tf.int32 and _is(op.outputs[0].shape, [3])}
    for op in ops:
        if op.outputs[0].dtype == tf.float32 and _is(op.outputs[0].shape, [*size, 3]):
            behind = reached(outputs, {op})
            if op not in behind:
                continue
            if source not in behind:
                return Cut(op.name, None)
            for shape in behind & shapes:
                if op not in reached(shape.outputs, {op}) and source not in reached(outputs, {op, shape}):
                    return Cut(op.name, shape.name)
    return None


def network_of(graph: Any, outputs: Sequence[Any], cut: Cut) -> Any:
    """The GraphDef from the cut to the outputs; the nodes of the cut are placeholders in it."""
    stops = {name for name in (cut.picture, cut.true_shape) if name}
    needed = {op.name for op in reached(outputs, {graph.get_operation_by_name(name) for name in stops})}
    whole = graph.as_graph_def()
    part = tf.compat.v1.GraphDef(library=whole.library, versions=whole.versions)
    for node in whole.node:
        if node.name in stops:
            dtype = tf.float32 if node.name == cut.picture else tf.int32
            placeholder = part.node.add(name=node.name, op="Placeholder")
            placeholder.attr["dtype"].type = dtype.as_datatype_enum
        elif node.name in needed:
            added = part.node.add()
            added.CopyFrom(node)
            # Of control edges, which are for assertions, none is followed.
            added.input[:] = [edge for edge in node.input if not edge.startswith("^")]
    return part


def reached(tensors: Iterable[Any], stops: Set[Any], *, also_waited_for: bool = False) -> set[Any]:
    """The operations that tensors depend on, back to some, beyond which nobody looks.

    Args:
        also_waited_for: follow control edges too.
    """
    seen: set[Any] = set()
    pending = [tensor.op for tensor in tensors]
    while pending:
        op = pending.pop()
        if op not in seen:
            seen.add(op)
            if op not in stops:
                pending += [tensor.op for tensor in op.inputs]
                pending += op.control_inputs if also_waited_for else []
    return seen


def _is(shape: Any, wanted: Sequence[int]) -> bool:
    """Whether a shape is [N, *wanted], N being 1 or not known."""
    if shape.rank != len(wanted) + 1:
        return False
    batch, *rest = shape.as_list()
    return batch in (1, None) and rest == list(wanted)
