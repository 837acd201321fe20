"""Where a model can be fetched from: the zoo or its mirror by a name, anything else by its URL."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

from beam_jobs import storage
from beam_jobs.detectors import download, zoo
from beam_jobs.words import shown_url

#: Names another server or folder that the zoo's models are fetched from: DATE/NAME.tar.gz, or a folder DATE/NAME.
MIRROR = "BEAM_DETECT_MODEL_MIRROR"

_ENDING = re.compile(r"\.(tar\.gz|tgz|tflite|pb)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """A model that can be fetched.

    Args:
        name: what people call it.
        entry: its name in the cache.
        urls: where it may be (an archive, a model that is one file, or a folder on a file system that Beam knows); the
            first that is there is taken.
        is_fixed: what is published there does not change, so a cached one need not be compared with it.
        given: what stands for it on a command line.
    """

    name: str
    entry: str
    urls: tuple[str, ...]
    is_fixed: bool
    given: str


def find(model: str) -> Source | None:
    """The source that a name of the zoo or a URL means; None when `model` is neither."""
    if known := zoo.ZOO.get(model):
        return Source(model, model, _zoo_urls(known), is_fixed=True, given=model)
    if not storage.is_remote(model):
        return None
    url = model.rstrip("/")
    if not download.is_http(url):
        # `x/saved_model` is a folder of the zoo's layout seen from inside, as it is on a disk.
        url = url.removesuffix("/saved_model")
    last = _ENDING.sub("", re.split(r"[?#]", url)[0].rpartition("/")[2])
    name = re.sub(r"[^\w.-]", "_", last, flags=re.ASCII).lstrip(".")[:100] or "model"
    entry = f"{name}-{hashlib.sha256(url.encode(errors='surrogateescape')).hexdigest()[:10]}"
    return Source(name, entry, (url,), is_fixed=False, given=shown_url(model))


def _zoo_urls(model: zoo.ZooModel) -> tuple[str, ...]:
    base = os.environ.get(MIRROR) or zoo.ROOT
    if not storage.is_remote(base):
        base = os.path.abspath(os.path.expanduser(base))
    urls = []
    for path in model.paths():
        urls.append(storage.join(base, path))
        if not download.is_http(base):
            urls.append(storage.join(base, path.removesuffix(".tar.gz")))
    return tuple(urls)
