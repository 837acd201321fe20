"""How many nodes a stored graph has, counted without TensorFlow: what opening it costs grows with them.

Format: protobuf's wire encoding; field numbers of tensorflow/core/protobuf/{saved_model,meta_graph}.proto and
tensorflow/core/framework/{graph,function}.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: SavedModel.meta_graphs, MetaGraphDef.graph_def.
_GRAPH_IN_SAVED_MODEL = (2, 2)
#: GraphDef.node; GraphDef.library, FunctionDefLibrary.function, FunctionDef.node_def.
_NODES_IN_GRAPH = ((1,), (2, 1, 3))

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def count_nodes(path: Path) -> int:
    """Nodes in a `saved_model.pb`, or in the file of a frozen graph, those of its functions included.

    Raises:
        ValueError: the file is broken.
    """
    prefix = _GRAPH_IN_SAVED_MODEL if path.name == "saved_model.pb" else ()
    data = memoryview(path.read_bytes())
    try:
        return sum(1 for nodes in _NODES_IN_GRAPH for _ in _messages(data, prefix + nodes))
    except IndexError as error:
        raise ValueError(f"{path.name} ends early") from error


def _messages(message: memoryview, path: tuple[int, ...]) -> Iterator[memoryview]:
    """The messages that are reached from `message` by the numbers of fields in `path`."""
    if not path:
        yield message
        return
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _BYTES:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("a message ends early")
            if number == path[0]:
                yield from _messages(message[at : at + size], path[1:])
            at += size
        elif kind == _VARINT:
            _, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"there is no wire type {kind}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
