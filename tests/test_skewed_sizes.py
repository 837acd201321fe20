"""A few very large pictures among small ones: no worker is left with them at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from beam_jobs.cli.main import main
from beam_jobs.matching import Found
from beam_jobs.runs.plan import Planner
from beam_jobs.transforms.plan import GROUP_BYTES, groups_of_part
from tests.pictures import write_pictures


def test_large_files_come_first_and_share_no_group(tmp_path):
    sizes = [1000] * 40
    sizes[35:39] = [GROUP_BYTES // 2, GROUP_BYTES // 2 + 1, 3 * GROUP_BYTES, 2000]
    found = [Found(f"/in/{i:02}", f"{i:02}", size, None) for i, size in enumerate(sizes)]
    with Planner() as planner:
        planner.add(found)
        planner.arrange()
        planner.write(str(tmp_path), 500, {})
    groups = [[work.input for work in group] for _, group in groups_of_part(0, str(tmp_path), 16)]
    assert groups == [[37], [*range(32, 36)], [36], [*range(16)], [*range(16, 32)], [38, 39]]


def test_inputs_of_unknown_size_stay_in_the_order_of_the_plan(tmp_path):
    with Planner() as planner:
        planner.add(Found(f"s3://b/{i:02}", f"{i:02}", None, None) for i in range(10))
        planner.arrange()
        planner.write(str(tmp_path), 500, {})
    groups = [[work.input for work in group] for _, group in groups_of_part(0, str(tmp_path), 4)]
    assert groups == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_both_workers_do_large_pictures(tmp_path: Path):
    """Four of the pictures take 0.5 s, the others 2 ms; by name they are the last group of 16."""
    write_pictures(tmp_path / "in", 300)
    for i in range(4):
        Image.fromarray(np.zeros((2900, 2900, 3), np.uint8)).save(tmp_path / f"in/z{i}.bmp")
    words = [f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--workers=2"]
    assert main(["detect", "--model=tests.fake_detectors:slow_on_large", *words]) == 0
    timings = pd.read_parquet(tmp_path / "out/timings")
    large = timings[timings["file_name"].str.startswith("z")]
    assert large["process"].nunique() == 2
