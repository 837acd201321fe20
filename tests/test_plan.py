from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.errors import JobError
from beam_jobs.formats.coco_ids import load_image_ids
from beam_jobs.formats.rows import RowsBuilder
from beam_jobs.matching import Found
from beam_jobs.records import MAX_IMAGE_ID, image_id_of
from beam_jobs.runs import plan as plans
from beam_jobs.runs.log import RunLog
from beam_jobs.runs.parts import commit_part
from beam_jobs.runs.plan import Plan, Planner, read_part


def arranged(found, image_ids=None, limit=None):
    with Planner(image_ids) as planner:
        planner.add(found)
        planner.arrange(limit)
        return list(planner), planner.repeated_inputs, planner.renamed


def files(*names: str) -> list[Found]:
    return [Found(f"/in/{name}", name, 10, None) for name in names]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), unique=True))
@settings(deadline=None, max_examples=50)
def test_names_are_in_the_order_of_their_bytes(names):
    planned, _, _ = arranged(files(*names))
    assert [one.key.file_name for one in planned] == sorted(names, key=str.encode)
    assert [one.input for one in planned] == list(range(len(names)))
    ids = [one.key.image_id for one in planned]
    assert len(set(ids)) == len(ids)
    assert all(0 <= image_id < MAX_IMAGE_ID for image_id in ids)


def test_ids_do_not_change_from_one_version_to_the_next():
    assert image_id_of("a/b.jpg") == 3728595750817645
    assert image_id_of("a/b.jpg", 1) != image_id_of("a/b.jpg")


def test_a_path_named_twice_is_done_once():
    planned, repeated, _ = arranged([*files("b", "a"), *files("a")])
    assert [one.key.file_name for one in planned] == ["a", "b"]
    assert repeated == 1


def test_a_repeated_name_gets_a_numbered_digest():
    found = [Found("/y/a.jpg", "a.jpg", 1, None), Found("/x/a.jpg", "a.jpg", 1, None)]
    planned, _, renamed = arranged(found)
    assert [(one.key.uri, one.key.image_id) for one in planned] == [
        ("/x/a.jpg", image_id_of("a.jpg")),
        ("/y/a.jpg", image_id_of("a.jpg", 0, 1)),
    ]
    assert [(one.file_name, one.image_id) for one in renamed] == [("a.jpg", image_id_of("a.jpg", 0, 1))]


def test_ids_of_the_ground_truth_go_to_exact_names_first(tmp_path):
    truth = tmp_path / "instances.json"
    images = [{"id": 5, "file_name": "b.jpg"}, {"id": 6, "file_name": "x/c.jpg"}, {"id": 7, "file_name": "y/c.jpg"}]
    truth.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    planned, _, renamed = arranged(files("a/b.jpg", "b.jpg", "c.jpg", "y/c.jpg"), load_image_ids(str(truth)))
    assert {one.key.file_name: one.key.image_id for one in planned} == {
        "a/b.jpg": image_id_of("a/b.jpg", 0, 1),  # asked for 5 by its base name, and came second
        "b.jpg": 5,
        "c.jpg": image_id_of("c.jpg"),  # two images of the truth have this base name
        "y/c.jpg": 7,
    }
    assert [one.file_name for one in renamed] == ["a/b.jpg"]


def test_the_plan_is_read_back_part_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "PARTS_A_SLICE", 3)
    odd = os.fsdecode(b"/in/caf\xe9.jpg")
    found = [*files(*(f"{i:02d}" for i in range(19))), Found(odd, "caf%E9.jpg", None, 5)]
    with Planner() as planner:
        planner.add(found)
        planner.arrange()
        whole = list(planner)
        written = planner.write(str(tmp_path), 4, {"model": "m"})
    assert Plan.read(str(tmp_path)) == written
    assert written.parts == [4, 4, 4, 4, 4]
    assert [one for part in range(5) for one in read_part(str(tmp_path), part)] == whole
    assert whole[-1].key.uri == odd


def test_large_files_do_not_share_a_part(tmp_path):
    big = plans.MAX_PART_BYTES
    found = [Found(f"/in/{i}", f"{i}", size, None) for i, size in enumerate([10, big, 10, 10, big // 2, big // 2])]
    with Planner() as planner:
        planner.add(found)
        planner.arrange()
        assert planner.write(str(tmp_path), 500, {}).parts == [1, 1, 3, 1]


def test_limit_takes_the_first_of_the_plan():
    assert [one.key.file_name for one in arranged(files("c", "a", "b"), limit=2)[0]] == ["a", "b"]


def test_a_part_that_does_not_add_up_is_not_committed(tmp_path):
    planned, _, _ = arranged(files("a", "b"))
    with pytest.raises(JobError, match="2 inputs, of which 2 have no row"):
        commit_part(str(tmp_path), 0, planned, [RowsBuilder("m", {}).encode()], RunLog())
    assert not list(tmp_path.iterdir())
