"""A run that was begun and not finished: what it was asked to do, what of it is done, and what a stop left behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgspec

from beam_jobs import storage
from beam_jobs.formats.tables import PUBLIC_TABLES
from beam_jobs.runs import layout
from beam_jobs.runs.launch import Launch
from beam_jobs.runs.parts import Counts, committed_records
from beam_jobs.runs.plan import Plan, PlannedInput, read_part

#: Differences that a message names.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Begun:
    """A run whose plan is written. Iterates over its inputs, in the order of the plan.

    Args:
        launch: as it was when the run was begun.
    """

    root: str
    plan: Plan
    launch: Launch

    @property
    def inputs(self) -> int:
        """How many inputs are planned."""
        return self.plan.inputs

    def __iter__(self) -> Iterator[PlannedInput]:
        for part in range(len(self.plan.parts)):
            yield from read_part(self.root, part)

    @property
    def bytes(self) -> int:
        """The bytes of all inputs, as far as they are known. Reads the plan."""
        return sum(one.size or 0 for one in self)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return storage.exists(storage.join(self.root, layout.SUCCESS))

    def taken_up(
        self,
        stage_s: Mapping[str, float],
        done: Mapping[int, Counts],
        max_failure_rate: float,
        *,
        begun: datetime,
        evaluate: bool,
    ) -> Launch:
        """The launch of what is left.

        Args:
            stage_s: wall-clock seconds of the launcher's stages so far.
            done: the parts that are committed.
            begun: when the program was.
        """
        return msgspec.structs.replace(
            self.launch,
            stage_s=dict(stage_s),
            submitted=datetime.now(UTC),
            max_failure_rate=max_failure_rate,
            evaluate=evaluate,
            taken_up=begun,
            resumed=self.launch.resumed + 1,
            inputs_before=sum(counts.inputs for counts in done.values()),
        )


def read_begun(root: str) -> Begun | None:
    """The run in `root`; None if there is none, or one of which nothing was begun: it was stopped while planning."""
    try:
        return Begun(root, Plan.read(root), Launch.read(root))
    except FileNotFoundError:
        return None


def differences(
    then: Mapping[str, Any],
    now: Mapping[str, Any],
    leave_out: frozenset[str] = frozenset(),
    names: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """What two descriptions of a job do not have in common, for people; empty if they are the same.

    Args:
        names: what people know the fields by, where that is something else; of fields in a group, of `group.field`.
    """
    pairs = _pairs({name: (then.get(name), now.get(name)) for name in {**then, **now} if name not in leave_out})
    differ = [(name, was, is_) for name, was, is_ in pairs if was != is_]
    words = [f"{names.get(name, name)} was {_brief(was)} and is {_brief(is_)}" for name, was, is_ in differ[:_NAMED]]
    return "; ".join(words + ([f"and {len(differ) - _NAMED} more"] if len(differ) > _NAMED else []))


def parts_done(root: str) -> dict[int, Counts]:
    """The parts that are committed, with their counts."""
    return {record.part: record.counts for record in committed_records(root)}


def sweep(root: str) -> None:
    """Takes away what killed writers left in the folders of a run. Nobody may be writing to it."""
    if storage.is_remote(root):
        return  # there a file is written at once, or not at all
    own = [
        *PUBLIC_TABLES,
        "coco",
        "superseded",
        layout.PLAN_FOLDER,
        layout.PARTS_FOLDER,
        f"{layout.PLAN_FOLDER}/annotated",
    ]
    folders = [root, *(storage.join(root, folder) for folder in own)]
    folders += [folder for folder, _, _ in os.walk(storage.join(root, layout.ANNOTATED_FOLDER))]
    for folder in folders:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in storage.list_dir(folder):
                if name.startswith(storage.TEMP_PREFIX):
                    storage.remove(storage.join(folder, name))


def _pairs(values: Mapping[str, tuple[Any, Any]]) -> Iterator[tuple[str, Any, Any]]:
    """Names and their two values; of two groups, those of what is in them."""
    for name, (was, is_) in values.items():
        if isinstance(was, Mapping) and isinstance(is_, Mapping):
            yield from ((f"{name}.{inner}", was.get(inner), is_.get(inner)) for inner in {**was, **is_})
        else:
            yield name, was, is_


def _brief(value: object) -> str:
    if isinstance(value, Mapping):
        return "given"
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:60]} … ({len(text)} letters)"
