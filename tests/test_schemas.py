from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pyarrow.parquet as pq
import pytest

from beam_jobs.cli.main import main
from beam_jobs.formats.tables import TABLES
from beam_jobs.schemas import dumps
from tests.pictures import write_pictures

SCHEMAS = Path(__file__).parent.parent / "schemas"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_pictures(folder / "in", 5)
    (folder / "in" / "bad.jpg").write_bytes(b"x")
    words = [f"--input={folder}/in", f"--output={folder}/out", "--part_size=2", "--model=tests.fake_detectors:colours"]
    assert main(["detect", *words]) == 0
    return folder / "out"


def test_the_checked_in_schemas_are_those_of_the_code():
    assert {path.name: path.read_text() for path in SCHEMAS.iterdir()} == dumps(), "run scripts/dump-schemas"


@pytest.mark.parametrize("table", TABLES)
def test_tables_are_as_the_schemas_say(run, table):
    dump = json.loads((SCHEMAS / f"{table}.arrow.json").read_text())
    files = sorted((run / table).iterdir())
    assert len(files) == 3  # each part has every table, also one without rows
    for file in files:
        schema = pq.read_schema(file)
        fields = [{"name": f.name, "type": str(f.type), "nullable": f.nullable} for f in schema]
        assert fields == dump["fields"]
        assert {k.decode(): v.decode() for k, v in schema.metadata.items() if k != b"ARROW:schema"} == dump["metadata"]


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        ("run.json", "run"),
        ("coco/detections.json", "coco-detections"),
        ("coco/dataset.json", "coco-dataset"),
    ],
)
def test_json_files_are_as_the_schemas_say(run, file, schema):
    document = json.loads((run / file).read_text())
    rules = json.loads((SCHEMAS / f"{schema}.schema.json").read_text())
    jsonschema.validate(document, rules)
    jsonschema.Draft202012Validator.check_schema(rules)


def test_columns_that_repeat_are_dictionary_encoded(run):
    def encodings(table: str, column: str) -> set[str]:
        group = pq.ParquetFile(sorted((run / table).iterdir())[1]).metadata.row_group(0)
        index = pq.read_schema(sorted((run / table).iterdir())[1]).names.index(column)
        assert group.column(index).compression == "ZSTD"
        return set(group.column(index).encodings)

    assert "RLE_DICTIONARY" in encodings("detections", "category")
    assert "RLE_DICTIONARY" not in encodings("images", "sha256")
