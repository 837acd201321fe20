"""What a `.tflite` file says of itself, read without an interpreter.

Schemas: TensorFlow's `compiler/mlir/lite/schema/schema.fbs`, and for the buffer TFLITE_METADATA TFLite Support's
`metadata/metadata_schema.fbs`. The numbers below are the slots of their tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from beam_jobs.detectors.flatbuffer import FlatbufferError, Table

#: The custom operator that decodes boxes and suppresses those that overlap. Its kernel gives, in this order: boxes
#: [1, K, 4] ymin, xmin, ymax, xmax, classes [1, K] from 0, scores [1, K], count [1]. Rows past the count are never set.
POSTPROCESS = "TFLite_Detection_PostProcess"

_IDENTIFIER = b"TFL3"
_METADATA = "TFLITE_METADATA"
_DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 5: "string", 6: "bool", 9: "int8"}
_NORMALISATION = 1  # in the union ProcessUnitOptions
_LABELS = (2, 3)  # TENSOR_AXIS_LABELS and TENSOR_VALUE_LABELS of AssociatedFileType


#: Mean and std, of each channel or one for all: a float input is (pixel - mean) / std.
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class TfliteTensor:
    """An input or output of the graph.

    Args:
        index: the tensor's number in the graph, as the interpreter counts.
        shape: a free dimension is -1. Empty for what the postprocessing operator gives: it is known when it runs.
        quantisation: scale and zero point, real = scale * (value - zero point); None when it has none, or several.
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    quantisation: tuple[float, int] | None

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class TfliteModel:
    """The first graph of a file.

    Args:
        postprocess: the indices of what the postprocessing operator gives: boxes, classes, scores, count; else empty.
        normalisation: None when the file does not say.
        label_files: files with the names of classes that the metadata speak of, those of no language first.
    """

    inputs: tuple[TfliteTensor, ...]
    outputs: tuple[TfliteTensor, ...]
    postprocess: tuple[int, ...]
    normalisation: Normalisation | None
    label_files: tuple[str, ...]


def is_tflite(start: bytes) -> bool:
    """Whether a file that starts with these bytes, 8 or more, is a TFLite model."""
    return start[4:8] == _IDENTIFIER


def read_model(data: bytes) -> TfliteModel:
    """What the bytes of a whole `.tflite` file say.

    Raises:
        FlatbufferError: they are cut off or damaged: nothing that is refused here may come to the interpreter, which
            trusts what it reads.
    """
    if not is_tflite(data):
        raise FlatbufferError(f"it does not have {_IDENTIFIER.decode()} at its bytes 4 to 8")
    model = Table.root(data)
    buffers = model.tables(4)
    _check_whole(buffers, len(data))
    if not (graphs := model.tables(2)):
        raise FlatbufferError("it has no graph")
    graph = graphs[0]
    tensors = graph.tables(0)
    metadata = [
        _item(buffers, entry.number(1, "I")).numbers(0, "<u1").tobytes()
        for entry in model.tables(6)
        if entry.text(0) == _METADATA
    ]
    about = Table.root(metadata[0]).tables(3)[:1] if metadata else []
    return TfliteModel(
        inputs=tuple(_tensor(tensors, int(index)) for index in graph.numbers(1, "<i4")),
        outputs=tuple(_tensor(tensors, int(index)) for index in graph.numbers(2, "<i4")),
        postprocess=_postprocess(model, graph),
        normalisation=_normalisation(tensor for each in about for tensor in each.tables(2)),
        label_files=_label_files(tensor for each in about for tensor in each.tables(3)),
    )


def _check_whole(buffers: Iterable[Table], size: int) -> None:
    for buffer in buffers:
        buffer.numbers(0, "<u1")  # raises when it reaches past the end
        # Those of models over 2 GB lie behind the flatbuffer, at offset and size.
        end = buffer.number(1, "Q") + buffer.number(2, "Q")
        if end > size:
            raise FlatbufferError(f"the file ends at byte {size}, before byte {end} that it refers to")


def _item(tables: Sequence[Table], index: int) -> Table:
    if not 0 <= index < len(tables):
        raise FlatbufferError(f"it refers to number {index} of {len(tables)}")
    return tables[index]


def _tensor(tensors: Sequence[Table], index: int) -> TfliteTensor:
    tensor = _item(tensors, index)
    code = tensor.number(1, "b")
    signature = tensor.numbers(7, "<i4")  # the shape with its free dimensions, if it has any
    shape = signature if len(signature) else tensor.numbers(0, "<i4")
    quantisation = tensor.table(4)
    scales: list[float] = [] if quantisation is None else quantisation.numbers(2, "<f4").tolist()
    zeros: list[int] = [] if quantisation is None else quantisation.numbers(3, "<i8").tolist()
    return TfliteTensor(
        index,
        tensor.text(3),
        _DTYPES.get(code, f"type {code}"),
        tuple(shape.tolist()),
        (scales[0], zeros[0]) if len(scales) == len(zeros) == 1 and scales[0] > 0 else None,
    )


def _postprocess(model: Table, graph: Table) -> tuple[int, ...]:
    codes = [code.text(1) for code in model.tables(1)]
    if POSTPROCESS not in codes:
        return ()
    for operator in graph.tables(3):
        number = operator.number(0, "I")
        if number < len(codes) and codes[number] == POSTPROCESS:
            return tuple(operator.numbers(2, "<i4").tolist())
    return ()


def _normalisation(inputs: Iterable[Table]) -> Normalisation | None:
    for unit in (unit for tensor in inputs for unit in tensor.tables(4)):
        options = unit.table(1)
        if unit.number(0, "B") == _NORMALISATION and options is not None:
            return tuple(options.numbers(0, "<f4").tolist()), tuple(options.numbers(1, "<f4").tolist())
    return None


def _label_files(outputs: Iterable[Table]) -> tuple[str, ...]:
    files = [file for tensor in outputs for file in tensor.tables(6) if file.number(2, "b") in _LABELS]
    return tuple(file.text(0) for file in sorted(files, key=lambda file: bool(file.text(3))))
