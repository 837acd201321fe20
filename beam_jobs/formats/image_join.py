"""Which image of the ground truth an image of the results is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.formats.evaluated import GroundTruth

#: Names that are kept for a message.
_EXAMPLES = 5


class How(IntEnum):
    """What joined an image to the truth; the lower one counts where two images ask for the same."""

    ID = 0
    EXACT_NAME = 1
    BASE_NAME = 2
    NOTHING = 3


@dataclass(frozen=True, slots=True)
class Joined:
    """Images of the results, each with its image of the truth.

    Args:
        image_ids: of the results, as they were given; int64 [N].
        truth_ids: the image of the truth of each, -1 for none; int64 [N]. No other number is there twice.
        how: a `How` for each; uint8 [N].
        unmatched: images that the truth does not have.
        unmatched_examples: their first names (or ids, where there is no name), sorted.
        repeated: images that lost their image of the truth to another image.
        repeated_examples: their first names, sorted.
        missing: ids of the truth that no image has, ascending; int64.
    """

    image_ids: NDArray[np.int64]
    truth_ids: NDArray[np.int64]
    how: NDArray[np.uint8]
    unmatched: int
    unmatched_examples: tuple[str, ...]
    repeated: int
    repeated_examples: tuple[str, ...]
    missing: NDArray[np.int64]

    def count(self, how: How) -> int:
        """Images that were joined in this way."""
        return int(np.count_nonzero((self.how == how) & (self.truth_ids >= 0)))

    def of_truth(self, results: pa.Table) -> pa.Table:
        """Those rows of `RESULTS` whose image the truth has, with its image ids.

        Args:
            results: of the images that were joined.
        """
        order = np.argsort(self.image_ids, kind="stable")
        at = np.searchsorted(self.image_ids[order], results["image_id"].to_numpy())
        ids = self.truth_ids[order][at]
        field = results.schema.get_field_index("image_id")
        renamed = results.set_column(field, results.schema.field(field), pa.array(ids))
        return renamed.filter(pa.array(ids >= 0))


class ImageJoin:
    """Finds images of a ground truth by id and by name. 56 bytes an image of the truth; picklable.

    An image with an id of the truth is that image, unless both have names and their last segments differ: then the ids
    are of another set, and only the name counts. By name it is the image of exactly that name, else the only one whose
    name ends with the same last segment. A name that two images of the truth share finds neither of them.

    Names are compared by 64-bit digests: among ten million, one of ten million others meets one by chance once in
    180,000 jobs.
    """

    def __init__(
        self,
        ids: NDArray[np.int64],
        bases: NDArray[np.uint64],
        by_name: tuple[NDArray[np.uint64], NDArray[np.int64]],
        by_base: tuple[NDArray[np.uint64], NDArray[np.int64]],
    ) -> None:
        self._ids = ids
        self._bases = bases
        self._by_name = by_name
        self._by_base = by_base

    @classmethod
    def of(cls, truth: GroundTruth) -> ImageJoin:
        """For the images of a truth."""
        ids = truth.images["image_id"].to_numpy()
        names = truth.images["file_name"].to_pylist()
        bases = _digests([_base(name) for name in names])
        return cls(ids, bases, _unique(_digests(names), ids), _unique(bases, ids))

    def find(self, images: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """The image of the truth of each image, -1 for none, and how it was found. Each is looked at by itself.

        Args:
            images: rows of `RESULT_IMAGES`.
        """
        image_ids = images["image_id"].to_numpy()
        names = images["file_name"].to_pylist()
        named = np.fromiter((name is not None for name in names), bool, len(names))
        exact = _digests([name or "" for name in names])
        bases = _digests([_base(name or "") for name in names])
        truth_ids = np.full(len(names), -1, np.int64)
        how = np.full(len(names), How.NOTHING, np.uint8)
        at, known = _places(self._ids, image_ids)
        known[known] &= ~named[known] | (self._bases[at[known]] == bases[known])
        truth_ids[known], how[known] = image_ids[known], How.ID
        for (keys, ids), wanted, kind in (
            (self._by_name, exact, How.EXACT_NAME),
            (self._by_base, bases, How.BASE_NAME),
        ):
            at, found = _places(keys, wanted)
            found &= named & (truth_ids < 0)
            truth_ids[found], how[found] = ids[at[found]], kind
        return truth_ids, how

    def join(self, images: pa.Table) -> Joined:
        """All images of the results at once, so that an image of the truth goes to one of them only.

        Where several ask for it, the one with the better reason gets it (`How`), of equals the first by name and id.

        Args:
            images: rows of `RESULT_IMAGES`, each image once.
        """
        image_ids = images["image_id"].to_numpy()
        truth_ids, how = self.find(images)
        unmatched = np.flatnonzero(truth_ids < 0)
        repeated = _losers(truth_ids, how, image_ids, images["file_name"])
        truth_ids[repeated] = -1
        return Joined(
            image_ids,
            truth_ids,
            how,
            len(unmatched),
            _examples(images, unmatched),
            len(repeated),
            _examples(images, repeated),
            np.setdiff1d(self._ids, truth_ids),
        )


def _losers(
    truth_ids: NDArray[np.int64], how: NDArray[np.uint8], image_ids: NDArray[np.int64], names: pa.ChunkedArray
) -> NDArray[np.intp]:
    """The positions of the images that do not get the image of the truth that they ask for."""
    ids, counts = np.unique(truth_ids[truth_ids >= 0], return_counts=True)
    asking = np.flatnonzero(np.isin(truth_ids, ids[counts > 1]))
    called = [name or "" for name in names.take(pa.array(asking)).to_pylist()]
    reasons = [
        (truth_id, kind, name.encode(), image_id)
        for truth_id, kind, name, image_id in zip(
            truth_ids[asking].tolist(), how[asking].tolist(), called, image_ids[asking].tolist(), strict=True
        )
    ]
    order = sorted(range(len(asking)), key=reasons.__getitem__)
    lost = [later for first, later in pairwise(order) if reasons[first][0] == reasons[later][0]]
    return asking[np.sort(np.array(lost, np.intp))]


def _examples(images: pa.Table, rows: NDArray[np.intp]) -> tuple[str, ...]:
    some = images.take(pa.array(rows))
    names = zip(some["file_name"].to_pylist(), some["image_id"].to_pylist(), strict=True)
    return tuple(sorted(name if name is not None else f"image_id {image_id}" for name, image_id in names)[:_EXAMPLES])


def _unique(digests: NDArray[np.uint64], ids: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Ascending digests that one image alone has, and its id."""
    keys, first, counts = np.unique(digests, return_index=True, return_counts=True)
    return keys[counts == 1], ids[first[counts == 1]]


def _places(keys: NDArray[np.generic], wanted: NDArray[np.generic]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where each wanted one is among ascending keys, and whether it is there."""
    if not len(keys):
        return np.zeros(len(wanted), np.intp), np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted


def _digests(names: Sequence[str]) -> NDArray[np.uint64]:
    joined = b"".join(blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(joined, "<u8")


def _base(name: str) -> str:
    return name.rpartition("/")[2]
