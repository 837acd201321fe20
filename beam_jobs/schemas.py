"""The schemas of a run's files as text, for readers in other languages: `schemas/` holds them, a test compares."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pyarrow as pa

from beam_jobs.evaluation.metrics import CURVES
from beam_jobs.evaluation.outputs import Metrics
from beam_jobs.formats import coco
from beam_jobs.formats.matches import MATCHES
from beam_jobs.formats.tables import PUBLIC_TABLES
from beam_jobs.runs.manifest import Manifest
from beam_jobs.runs.since import SUPERSEDED


def dumps() -> dict[str, str]:
    """File names in `schemas/`, and what stands in them: Arrow schemas of tables, JSON Schema of JSON files."""
    tables = {**PUBLIC_TABLES, "matches": MATCHES, "curves": CURVES, "superseded": SUPERSEDED}
    arrow = {f"{name}.arrow.json": _arrow(schema) for name, schema in tables.items()}
    documents = {
        "run": Manifest,
        "metrics": Metrics,
        "coco-detections": list[coco.Result],
        "coco-detections-segm": list[coco.MaskResult],
        "coco-dataset": coco.Dataset,
    }
    json = {f"{name}.schema.json": _cleaned(msgspec.json.schema(kind)) for name, kind in documents.items()}
    return {name: _text(content) for name, content in {**arrow, **json}.items()}


def _arrow(schema: pa.Schema) -> dict[str, Any]:
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    fields = [{"name": f.name, "type": str(f.type), "nullable": f.nullable} for f in schema]
    return {"metadata": metadata, "fields": fields}


def _cleaned(schema: Any) -> Any:
    """Docstrings become descriptions; how they are indented depends on the version of Python."""
    if isinstance(schema, dict):
        return {
            key: inspect.cleandoc(value) if key == "description" and isinstance(value, str) else _cleaned(value)
            for key, value in schema.items()
        }
    return [_cleaned(item) for item in schema] if isinstance(schema, list) else schema


def _text(content: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(content, order="deterministic"), indent=2).decode() + "\n"
