"""`beam-detect evaluate`: from flags to metrics, matches and curves."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs import engines, storage
from beam_jobs.cli import interrupt
from beam_jobs.cli.categories import chosen_ids
from beam_jobs.cli.elsewhere import Elsewhere
from beam_jobs.cli.output_folder import check_output, make_output
from beam_jobs.cli.progress import status
from beam_jobs.cli.sides import check_images, join_results, read_truth, repeats
from beam_jobs.cli.summary import printable, say
from beam_jobs.errors import JobError, UsageError
from beam_jobs.evaluation import metrics, outputs
from beam_jobs.evaluation.accumulated import Accumulated
from beam_jobs.evaluation.diagnostics import DiagnosticsResult, diagnose
from beam_jobs.evaluation.finished import Finished
from beam_jobs.evaluation.groups import number_of_groups
from beam_jobs.evaluation.outputs import Metrics
from beam_jobs.evaluation.settings import COCO_IOU_THRESHOLDS, AreaRange, EvaluationSettings
from beam_jobs.evaluation.shards import Router, gather, store_results, write_shards
from beam_jobs.evaluation.work import Sums, matches_path, read_finished
from beam_jobs.formats.evaluated import EVALUATION_FILES, SHARDS_FOLDER, GroundTruth, IouType
from beam_jobs.formats.image_join import How, Joined
from beam_jobs.formats.label_map import load_label_map
from beam_jobs.formats.results import ResultSource
from beam_jobs.runs.manifest import versions
from beam_jobs.words import counted

if TYPE_CHECKING:
    import apache_beam as beam

#: Names that are listed of images that one side lacks.
NAMED = 20
#: Best and worst classes that are printed.
EXTREMES = 5


@dataclass(frozen=True, slots=True)
class Request:
    """What is evaluated against what, where to, and how; None is COCO's own.

    Args:
        categories: names or ids of classes; None for all.
        area_ranges: label, low and high, in square pixels.
        label_map: names by category id, for TFRecords that hold class names only; None if there are none.
        engine: `streaming` or `pycocotools`.
        images: the folder of the truth's pictures, for the report; empty for none.
    """

    detections: str
    ground_truth: str
    output: str
    iou_type: IouType = "bbox"
    categories: Sequence[str] | None = None
    iou_thresholds: tuple[float, ...] | None = None
    area_ranges: tuple[tuple[str, float, float], ...] | None = None
    max_detections: tuple[int, ...] | None = None
    label_map: Mapping[int, str] | None = None
    engine: str = "streaming"
    images: str = ""


def run(options: argparse.Namespace, beam_args: Sequence[str]) -> int:
    """Evaluates; returns the exit status.

    Raises:
        UsageError: it cannot start.
        JobError: it cannot be completed.
    """
    root = options.output if storage.is_remote(options.output) else os.path.abspath(options.output)
    if beam_args:
        storage.set_options(beam_args)
        beam_args = engines.completed(beam_args)
        named = (("--detections", options.detections), ("--output", options.output))
        engines.check_paths(beam_args, named)
    start_afresh(root, options.output, overwrite=options.overwrite)
    check_images(options.images)
    label_map = load_label_map(options.label_map) if options.label_map else None
    request = Request(
        options.detections,
        options.ground_truth,
        root,
        options.iou_type,
        options.categories,
        options.iou_thresholds,
        options.area_ranges,
        options.max_detections,
        label_map,
        options.engine,
        options.images or "",
    )
    evaluated = evaluate(request, beam_args)
    say(evaluated.text)
    say(f"\nmetrics, matches, curves and report.html are in {options.output}")
    return 0


def start_afresh(root: str, shown: str, *, overwrite: bool = True) -> None:
    """Refuses a folder that holds anything; takes away the evaluation in it, finished or not, with `overwrite`.

    Args:
        shown: the folder as the user named it.
    """
    check_output(root, shown, "evaluation", EVALUATION_FILES, overwrite=overwrite, scratch=SHARDS_FOLDER)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation that is done: what `metrics.json` holds, and what a terminal shows."""

    metrics: Metrics
    text: str


def load_truth(request: Request) -> GroundTruth:
    """The ground truth of an evaluation."""
    return read_truth(request.ground_truth, request.iou_type, request.label_map)


def evaluate(request: Request, beam_args: Sequence[str], truth: GroundTruth | None = None) -> Evaluated:
    """Evaluates into a folder that is empty or new; `truth` is that of the request, if it has been read."""
    truth = truth or load_truth(request)
    with status("looking at the detections …"):
        called = f"--detections {request.detections}"
        results = join_results(request.detections, called, truth, request.ground_truth, request.iou_type)
    sources, parsed, joined = results.sources, results.parsed, results.joined
    settings = settings_of(request, truth.categories)
    make_output(request.output, request.output)
    interrupt.left_behind.append(f"{request.output} holds an unfinished evaluation: --overwrite starts it afresh.")
    try:
        with status("evaluating …"):
            shards = write_shards(request.output, truth, joined.image_ids, joined.truth_ids)
            if parsed:
                sources = [*store_results(request.output, parsed.results)]
                del parsed, results
        groups = number_of_groups(settings, truth.images.num_rows)
        sums, finished = _evaluated(request, sources, shards, groups, settings, truth.categories, beam_args)
        if request.engine == "pycocotools":
            accumulated = _oracle(request.output, settings, truth, sources)
        else:
            accumulated = finished.accumulated()
        diagnostics = diagnose(finished, sums.confusion, truth.categories)
    except UsageError:
        outputs.remove_shards(request.output)
        raise
    return _write(request, settings, truth, joined, sources, shards, sums, accumulated, diagnostics)


def settings_of(options: argparse.Namespace | Request, categories: Mapping[int, str]) -> EvaluationSettings:
    """COCO's parameters, but for what the flags say.

    Raises:
        UsageError: what cannot be evaluated so.
    """
    ids = chosen_ids(options.categories, categories) & set(categories) if options.categories else set(categories)
    if not ids:
        raise UsageError("There are no classes to evaluate: the ground truth names none of them.")
    areas = tuple(AreaRange(*area) for area in options.area_ranges) if options.area_ranges else None
    try:
        return EvaluationSettings.of(
            options.iou_type,
            tuple(sorted(ids)),
            iou_thresholds=options.iou_thresholds or COCO_IOU_THRESHOLDS,
            area_ranges=areas,
            max_detections=options.max_detections,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _evaluated(
    request: Request,
    sources: list[ResultSource],
    shards: int,
    groups: int,
    settings: EvaluationSettings,
    categories: Mapping[int, str],
    beam_args: Sequence[str],
) -> tuple[Sums, Finished]:
    from beam_jobs import pipelines
    from beam_jobs.transforms.evaluate import SUMS

    root = request.output

    def build(pipeline: beam.Pipeline) -> object:
        return pipelines.evaluate(pipeline, root, sources, shards, groups, settings, categories)

    try:
        if engines.is_local(beam_args):
            engines.run_here(build, beam_args)
        else:
            job = engines.submit(build, beam_args)
            for name, text in engines.described(job, beam_args):
                say(f"{name:<13} {text}")
            with Elsewhere(job, list(interrupt.left_behind)) as there:
                there.wait()
    except (ValueError, UsageError) as error:
        # Beam keeps the kind of an error that a step raises in this process.
        raise UsageError(f"The detections cannot be evaluated so: {engines.reason(error)}.") from error
    except JobError:
        raise
    except Exception as error:
        raise JobError(engines.reason(error)) from error
    sums = Sums.from_bytes(storage.read_bytes(storage.join(root, SUMS)))
    if sums.counts["unknown_categories"] and not sums.counts["detections"] + sums.counts["other_categories"]:
        raise UsageError(
            f"--detections {request.detections} and --ground_truth {request.ground_truth} have no class in common (the"
            f" truth has {', '.join(f'{i} {name}' for i, name in list(categories.items())[:5])} …)."
        )
    return sums, read_finished(root, settings, groups)


def _oracle(
    root: str, settings: EvaluationSettings, truth: GroundTruth, sources: Sequence[ResultSource]
) -> Accumulated:
    # pycocotools is imported where it is asked for only.
    from beam_jobs.evaluation import oracle

    router = Router(root)
    results = gather(rows for source in sources for _, rows in router.route(source.read().results))
    return oracle.evaluate(settings, truth.images, truth.objects, results)


def _write(
    request: Request,
    settings: EvaluationSettings,
    truth: GroundTruth,
    joined: Joined,
    sources: Sequence[ResultSource],
    shards: int,
    sums: Sums,
    accumulated: Accumulated,
    diagnostics: DiagnosticsResult,
) -> Evaluated:
    root = request.output
    per_class = {what: _per_class(sums, what) for what in ("truths", "detections")}
    by_category = metrics.per_category(accumulated, truth.categories, per_class["truths"], per_class["detections"])
    outputs.write_per_category(root, by_category)
    outputs.write_parquet(root, outputs.CURVES, metrics.curves(accumulated, truth.categories))
    outputs.join_matches(root, map(matches_path, range(shards)))
    names = truth.images.filter(pc.is_in(truth.images["image_id"], value_set=pa.array(joined.missing)))
    counts = {name: count for name, count in sorted(sums.counts.items()) if ":" not in name}
    counts["unseen_images"] = len(joined.missing)
    counts["repeated_images"] = joined.repeated
    counts["joined_by_id"] = joined.count(How.ID)
    counts["joined_by_name"] = joined.count(How.EXACT_NAME) + joined.count(How.BASE_NAME)
    written = Metrics(
        version=outputs.METRICS_VERSION,
        metrics=metrics.summary(accumulated),
        iou_type=settings.iou_type,
        settings=outputs.describe(settings, truth.categories),
        engine=request.engine,
        detections=request.detections,
        ground_truth=request.ground_truth,
        counts=counts,
        errors=outputs.errors(diagnostics),
        unseen_images=names["file_name"].slice(0, NAMED).to_pylist(),
        unknown_images=list(joined.unmatched_examples),
        warnings=[*truth.warnings, *_warnings(request, joined, counts)],
        versions=versions(),
        files=list(outputs.FILES),
    )
    with status("writing the report …"):
        # Imported here: a page needs Pillow, and nothing before it does.
        from beam_jobs.report.from_evaluation import Sides, write_report

        sides = Sides(truth, sources, joined, request.images)
        write_report(root, written, accumulated, by_category, diagnostics, sides)
    outputs.remove_shards(root)
    written.write(root)
    warnings = [f"warning: {warning}" for warning in written.warnings]
    lines = [*warnings, *metrics.print_table(accumulated).splitlines(), *_extremes(by_category)]
    return Evaluated(written, "\n".join(map(printable, lines)))


def _per_class(sums: Sums, what: str) -> dict[int, int]:
    prefix = f"{what}:"
    return {int(name.removeprefix(prefix)): n for name, n in sums.counts.items() if name.startswith(prefix)}


def _warnings(request: Request, joined: Joined, counts: Mapping[str, int]) -> list[str]:
    found = []
    unknown = counts.get("unknown_images", 0)
    if joined.unmatched or unknown:
        examples = f": {', '.join(joined.unmatched_examples)}" if joined.unmatched_examples else ""
        these = counted(joined.unmatched, "image of the detections is", "images of the detections are")
        ignored = counted(unknown, "detection does", "detections do")
        found.append(f"{these} not in the ground truth{examples}; {ignored} not count")
    if joined.repeated:
        these = counted(joined.repeated, "image shares", "images share")
        found.append(f"{these} one of the truth with others: {', '.join(joined.repeated_examples)}")
    if unseen := counts["unseen_images"]:
        these = counted(unseen, "image of the ground truth is", "images of the ground truth are")
        found.append(f"{these} not among the detections; their truths count as missed")
    if others := counts.get("unknown_categories"):
        these = counted(others, "detection was", "detections were")
        found.append(f"{these} left out: their classes are not in the ground truth")
    if repeated := counts.get("repeated_detections"):
        found.append(repeats(repeated, "the detections"))
    return found


def _extremes(by_category: pa.Table) -> list[str]:
    """The best and the worst classes by AP, with their numbers of truths."""
    rows = [row for row in by_category.select(["category", "AP", "num_truths"]).to_pylist() if row["AP"] > -1]
    rows.sort(key=lambda row: (-row["AP"], row["category"]))
    if len(rows) < 2:
        return []
    most = min(EXTREMES, len(rows) // 2)
    lines = ["", f"best {most} and worst {most} of {counted(len(rows), 'class', 'classes')} with truths:"]
    width = max(len(row["category"]) for row in [*rows[:most], *rows[-most:]])
    for row in [*rows[:most], *rows[-most:]]:
        lines.append(f"  {row['category']:<{width}}  AP {row['AP']:.3f}  {counted(row['num_truths'], 'truth')}")
    return lines
