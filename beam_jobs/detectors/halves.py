"""A model cut in two behind its own resizer, so that pictures share a call whatever their sizes.

The API's models begin with a loop over the batch, which resizes and pads each picture and notes where it ends; all that
follows goes by what the loop gives (`resize_images_and_return_shapes` of the API's `utils/shape_utils.py`). So each
picture goes through the first half alone, whatever its size, and several of them through the second half together:
nothing is computed in another way than in the whole model.

Only a model whose graph lies open can be cut: its frozen form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from beam_jobs.detectors.base import BatchKey, Picture
from beam_jobs.detectors.loaded_model import LoadedModel
from beam_jobs.detectors.model_input import ModelInput, fed
from beam_jobs.detectors.network_cut import reached
from beam_jobs.detectors.resizing import Size
from beam_jobs.detectors.tensorflow_runtime import tf

_LOOPS = ("While", "StatelessWhile")
#: What makes a tensor of what the rounds of a loop gave.
_STACK = "TensorListStack"
#: Sizes of pictures whose keys are remembered.
_SIZES = 4096


class Halves:
    """The two halves.

    Args:
        takes: the input of the first.
        resize: the first half: from a batch of one to the pictures as the network sees them, [1, height, width, 3], and
            what else the second half takes.
        infer: the second half: from the same of several pictures to the model's outputs, as tensors by name.
    """

    def __init__(
        self, takes: ModelInput, resize: Callable[[Any], Sequence[Any]], infer: Callable[..., Mapping[str, Any]]
    ) -> None:
        self._takes = takes
        self._resize = resize
        self._infer = infer
        self.key = lru_cache(_SIZES)(self._key)

    def _key(self, picture: Size) -> BatchKey | None:
        """The size in which the network sees a picture of this size; None where the model cannot resize it."""
        try:
            shape = self.ready(np.zeros((*picture, 3), np.uint8))[0].shape.as_list()
        except tf.errors.OpError:
            return None
        return BatchKey((shape[1], shape[2]), shape[1] * shape[2])

    def ready(self, picture: Picture) -> Sequence[Any]:
        """What the first half makes of a picture."""
        return self._resize(fed(self._takes, [picture]))

    def call(self, ready: Sequence[Sequence[Any]]) -> Mapping[str, Any]:
        """The outputs for several pictures of one key."""
        return self._infer(*(tf.concat(tensors, 0) for tensors in zip(*ready, strict=True)))


def cut(model: LoadedModel) -> Halves | None:
    """The two halves of a model of a free batch dimension; None for one that does not begin as the API's do."""
    function = model.function
    if model.takes.batch is not None or not hasattr(function, "prune"):
        return None
    placeholder, outputs = function.inputs[0], function.graph.structured_outputs
    if not isinstance(outputs, dict):
        return None
    wanted = {key: outputs[key] for key in model.outputs}
    for resized in _resized(function.graph):
        known = {tensor.op for tensor in resized}
        if placeholder.op not in reached(wanted.values(), known, also_waited_for=True):
            return Halves(model.takes, function.prune(placeholder, resized), function.prune(resized, wanted))
    return None


def _resized(graph: Any) -> Iterator[list[Any]]:
    """What may be the end of a resizer: pictures as floats, and where each ends."""
    for loop in graph.get_operations():
        if loop.type not in _LOOPS:
            continue
        stacks = [user.outputs[0] for output in loop.outputs for user in output.consumers() if user.type == _STACK]
        pictures = [each for each in stacks if each.dtype == tf.float32 and _is(each, 4)]
        ends = [each for each in stacks if each.dtype == tf.int32 and _is(each, 2)]
        if len(stacks) == 2 and pictures and ends:
            yield [*pictures, *ends]


def _is(tensor: Any, rank: int) -> bool:
    """Whether it has so many dimensions, the last of 3."""
    return bool(tensor.shape.rank == rank and tensor.shape[-1] == 3)
