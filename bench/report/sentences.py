"""The sentences of a report: what ran, where, on what, and what must not be overlooked."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.accuracy.flips import compare
from bench.analysis.accuracy.predictions import RANDOM_NOTE, ScoredRun
from bench.analysis.stats import paired
from bench.analysis.table import DEMO_NOTE
from bench.analysis.time import verdict
from bench.backends import REGISTRY, display_name, runtime_packages
from bench.backends import facts as facts_of
from bench.record.case import LOAD, Case
from bench.report.text import number, one_line, percent, row_names, two_digits, whole, written
from scarlet.errors import BenchError
from scarlet.preprocess import Preprocess

Row = Mapping[str, Any]

# Packages whose versions stand under every report, besides the runtimes themselves.
OTHER_PACKAGES = ("nvidia-dali-cuda130", "timm")

# Two runtimes of one network seldom differ on more images than this share.
USUAL_DISCORDANCE = 0.01

# From this share of disturbed rounds on, a summary tells of them.
MANY_DISTURBED = 0.1

# A pass that reaches this share of what its parts allow has lost nothing worth a sentence.
HARDLY_LOST_PERCENT = 90.0


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The frame's rows as plain dictionaries, unknown values as None."""
    plain = frame.astype(object)
    rows = plain.where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def watermarks(frame: pd.DataFrame, info: Mapping[str, Any]) -> list[str]:
    """Sentences that must stand on every report of such a run."""
    weights = set(frame["weights"])
    is_demo = bool((info.get("dataset") or {}).get("is_demo")) or "demo" in weights
    return [note for note, due in ((DEMO_NOTE, is_demo), (RANDOM_NOTE, "random" in weights)) if due]


def baseline_name(rows: Sequence[Row]) -> str:
    """What the rows are compared with, where it is one backend."""
    backends = {row["backend"] for row in rows if row["case_id"] == row["baseline_case_id"]}
    return display_name(backends.pop()) if len(backends) == 1 else "baseline"


def comparison_lines(
    rows: Sequence[Row], baseline: str, n_comparisons: int, info: Mapping[str, Any], explain_unresolved: bool = True
) -> tuple[str, ...]:
    """How the rows' ratios are to be read, how many rounds were disturbed, and what the machine can resolve.

    Args:
        n_comparisons: in the run.
        explain_unresolved: say what an unresolved row is, where there is one.
    """
    compared = [row for row in rows if row["ratio"] is not None]
    if not compared:
        return ()

    together = f", {n_comparisons} comparisons together" if n_comparisons > 1 else ""
    lines = []
    for several in (True, False):
        alike = [row for row in compared if (row["n_lives"] > 1) == several]
        if alike:
            how = (
                f"mean ratio of times over {span(row['n_lives'] for row in alike)} lives of the processes, "
                "95 % interval over lives and over rounds"
                if several
                else "within one life of the processes, median ratio of times over rounds, 95 % sign-test interval"
            )
            share = 100 * verdict.asked(verdict.materiality(info), 1 + several)
            lines.append(f"vs {baseline}: {how}{together}; up to {share:.3g} % counts as the same")
    if explain_unresolved and any(row["verdict"] == verdict.Verdict.UNRESOLVED for row in compared):
        lines.append(f"unresolved: this run does not settle it; the interval is of the time over that of {baseline}")
    most = max(compared, key=lambda row: row["n_disturbed_rounds"] or 0)
    if most["n_disturbed_rounds"]:
        lines.append(f"the host disturbed {most['n_disturbed_rounds']} of {most['n_rounds']} rounds; they are kept")
    known = verdict.resolution(info)
    lines.append(
        "no A/A run of this machine is known: scarlet-bench noise tells what difference it can resolve"
        if known is None
        else f"this machine resolves differences of {100 * known:.2g} % or more (A/A run)"
    )
    told = (info.get("resolves") or {}).get(compared[0]["scenario"], {}).get("difference")
    if told is not None:
        lines.append(
            f"a run of this budget tells differences of {two_digits(100 * told)} % or more in four of five cases"
        )
    return tuple(lines)


def bound_lines(rows: Sequence[Row]) -> tuple[str, ...]:
    """How the share of the sum of parts is to be read, what bounds each row, and where the parts lose time together."""
    bound = [row for row in rows if row.get("bound_by")]
    if not bound:
        return ()
    settings = ("precision", "pipeline", "batch", "threads", "instances", "options")
    called = row_names(bound, ("backend",), settings)
    groups: dict[str, list[str]] = {}
    for name, row in zip(called, bound, strict=True):
        groups.setdefault(row["bound_by"], []).append(name)
    lines = [
        "of sum of parts: against decode, preprocess and compute timed alone, one after the other where they share "
        "cores, or the slower side where each has its own",
        "what bounds the rows: " + "; ".join(f"{part}: {', '.join(who)}" for part, who in groups.items()),
    ]
    slow = [
        f"{name} ({row['sum_of_parts_percent']:.0f} %)"
        for name, row in zip(called, bound, strict=True)
        if (row["sum_of_parts_percent"] or 100.0) < HARDLY_LOST_PERCENT
    ]
    if slow:
        lost = ", ".join(slow)
        lines.append(
            f"lost beyond that: {lost}: side by side the parts wait for each other, or for memory and caches they share"
        )
    return tuple(map(one_line, lines))


def accuracy_lines(rows: Sequence[Row]) -> tuple[str, ...]:
    """The smallest difference of two top-1 accuracies that the images of the table can resolve."""
    scored = [row for row in rows if row["top1_percent"] is not None and row["n_images"]]
    if not scored:
        return ()

    n = min(row["n_images"] for row in scored)
    apart = [1.0 - row["agreement_percent"] / 100.0 for row in scored if row["agreement_percent"] is not None]
    # Images on which exactly one is right are among those whose top-1 differs.
    share = max([USUAL_DISCORDANCE, *apart])
    # Of few images so small a share is a handful, and resolves nothing: the smallest share that does is named.
    while (least := paired.min_detectable_difference(n, share)) is None and share < 0.5:
        share *= 1.02
    if least is None:
        return (f"{whole(n)} images are too few to tell two top-1 accuracies apart",)
    return (
        f"{whole(n)} images resolve top-1 differences of {100 * least:.2g} points or more "
        f"where two rows differ on {100 * share:.2g} % of them (paired, 80 % power)",
    )


def summary(frame: pd.DataFrame) -> str:
    """The run in a sentence."""
    rows = records(frame)
    if not rows:
        return "No Case was planned."
    models = ", ".join(dict.fromkeys(f"{row['model']} ({row['weights']} weights)" for row in rows))
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=_ok_first))
    sentence = f"{len(rows)} Case{'s' if len(rows) > 1 else ''} of {models}: {statuses}"
    timed = [row for row in rows if row["scenario"] == "latency" and row["status"] == "ok" and row["latency_ns_p50"]]
    if timed:
        sentence += f"; {_fastest(timed)}"
    disturbed = max(
        (row["n_disturbed_rounds"] / row["n_rounds"] for row in rows if row["n_disturbed_rounds"]), default=0
    )
    if disturbed >= MANY_DISTURBED:
        sentence += f"; the host disturbed {100 * disturbed:.0f} % of the rounds"
    return one_line(f"{sentence}.")


def _fastest(timed: Sequence[Row]) -> str:
    """Which row of the smallest batch is the fastest; none, where no verdict sets the others apart from it."""
    batch = min(row["batch"] for row in timed)
    first, *others = sorted(
        (row for row in timed if row["batch"] == batch), key=lambda row: float(row["latency_ns_p50"])
    )
    names = [f"{row['backend']} {row['device']} {row['precision']}" for row in (first, *others)]
    close = [name for name, row in zip(names[1:], others, strict=True) if not _is_slower(row, first)]
    if close:
        return f"at batch {batch} this run does not settle which is the fastest: {', '.join([names[0], *close])}"
    return f"lowest median latency at batch {batch}: {names[0]}, {written('latency_ns_p50', first)} ms"


def _is_slower(row: Row, than: Row) -> bool:
    """Whether verdicts, or intervals of ratios to one baseline, set a row apart from a faster one."""
    if row["baseline_case_id"] != than["baseline_case_id"]:
        low, high = row["latency_ns_p50_low"], than["latency_ns_p50_high"]
    elif row["case_id"] == row["baseline_case_id"]:
        return bool(than["verdict"] == verdict.Verdict.FASTER)
    elif than["case_id"] == row["baseline_case_id"]:
        return bool(row["verdict"] == verdict.Verdict.SLOWER)
    else:
        low, high = row["ratio_low"], than["ratio_high"]
    return low is not None and high is not None and bool(low > high)


def _ok_first(item: tuple[str, int]) -> tuple[bool, str]:
    return item[0] != "ok", item[0]


def host_line(info: Mapping[str, Any]) -> str:
    """The machine and the versions that ran."""
    host, packages = info.get("host") or {}, info.get("packages") or {}
    parts = [host.get("cpu_model"), host.get("architecture")]
    if host.get("logical_cores_allowed"):
        parts.append(f"{host['logical_cores_allowed']} of {host.get('logical_cores') or '?'} logical cores")
    if host.get("memory_total_bytes"):
        parts.append(f"{host['memory_total_bytes'] / 2**30:.0f} GiB of memory")
    nvidia = host.get("nvidia") or {}
    parts += [gpu.get("name") for gpu in nvidia.get("gpus") or ()]
    if nvidia.get("driver"):
        parts.append(f"driver {nvidia['driver']}")
    parts += [host.get("os"), host.get("python")]
    # The revision says which this package is.
    runtimes = [name for name in (*runtime_packages(), *OTHER_PACKAGES) if name != "scarlet-bench"]
    parts += [f"{name} {packages[name]}" for name in runtimes if packages.get(name)]
    git = info.get("git") or {}
    if git.get("commit"):
        parts.append(f"revision {git['commit'][:12]}{' with changes' if git.get('dirty') else ''}")
    return one_line(", ".join(str(part) for part in parts if part)) or "unknown"


def dataset_line(info: Mapping[str, Any]) -> str:
    """The images."""
    dataset = info.get("dataset") or {}
    if not dataset:
        return "unknown"
    parts = [f"{whole(dataset.get('n_images')) or '?'} images", dataset.get("layout")]
    if dataset.get("fingerprint"):
        parts.append(f"fingerprint {dataset['fingerprint'][:12]}")
    return one_line(", ".join(str(part) for part in parts if part))


def facts(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands at the top of a report: host, images, preprocessing, and when it began, by name."""
    started = [("Started", one_line(str(info["created_at"])))] if info.get("created_at") else []
    fed = info.get("model_input") or {}
    source = fed.get("source") or "ImageNet's, assumed: nothing states the model's own"
    lines = [("Preprocessing", f"{Preprocess.from_dict(fed['preprocess'])} ({one_line(source)})")] if fed else []
    return [("Host", host_line(info)), ("Images", dataset_line(info)), *lines, *started]


def command_line(info: Mapping[str, Any]) -> str:
    """The command that measured, to copy; empty where it is not known."""
    words = [str(word) for word in info.get("command") or ()]
    return shlex.join([Path(words[0]).name, *words[1:]]) if words else ""


# What a stage holds, by scenario, device (empty: any other) and stage: the timing contract of docs/method.md.
STAGES = {
    ("latency", "", "compute"): "from a batch in host memory to its logits in host memory",
    ("latency", "cuda", "compute"): "the work of the GPU alone, by its events: copies to it and back are left out",
    ("latency", "", "end_to_end"): "the call as its caller sees it, copies to a device and back included",
    **{(name, "", "query"): "from LoadGen's query to its answer, images in memory" for name in LOAD},
    ("throughput", "", "end_to_end"): "from image files to top-5, decoding and every copy included",
}


def machine_lines(info: Mapping[str, Any]) -> Iterator[str]:
    """Hardware, driver and versions; and what is known of the clocks."""
    yield f"measured on {host_line(info)}"
    host = info.get("host") or {}
    clocks = [f"CPU governor {host['governor']}"] if host.get("governor") else []
    if host.get("turbo") is not None:
        clocks.append(f"turbo {'on' if host['turbo'] else 'off'}")
    for gpu in (host.get("nvidia") or {}).get("gpus") or ():
        if gpu.get("sm_clock_max_mhz"):
            set_to = f", set to {gpu['sm_clock_set_mhz']} MHz" if gpu.get("sm_clock_set_mhz") else ""
            clocks.append(f"GPU clock up to {gpu['sm_clock_max_mhz']} MHz{set_to}")
    if host:
        yield ", ".join(clocks) or "the machine does not tell its governor and clocks"


def stages(rows: Sequence[Row]) -> str:
    """What was timed, stage by stage, and whether copies to a device and back are in it."""
    texts = []
    for scenario, device, stage in dict.fromkeys((row["scenario"], row["device"], row["stage"]) for row in rows):
        what = STAGES.get((scenario, device, stage)) or STAGES.get((scenario, "", stage))
        texts.append(f"stage {stage or 'unknown'}{f' ({what})' if what else ''}")
    return ", ".join(dict.fromkeys(texts))


def span(counts: Iterable[int | None]) -> str:
    """The least and the greatest of some counts; those of 0 and those that are not known are left out."""
    known = [count for count in counts if count]
    low, high = whole(min(known)), whole(max(known))
    return low if low == high else f"{low} to {high}"


def pixel_lines(info: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence on each pipeline that was compared with the reference, or could not be.

    Args:
        info: the content of ``run.json``; runs of before this check have nothing to say.
    """
    lines = []
    for name, found in (info.get("preprocessing") or {}).items():
        if found["status"] == "ok":
            images = found["report"]["images"]
            lines.append(f"{name}: {pixel_difference(images['whole'])} on {whole(images['n_images'])} images")
        elif found["status"] == "invalid":
            lines.append(f"{found['reason']}: rows of this pipeline are invalid")
        else:
            lines.append(f"{name}: not compared with the reference: {found['reason']}")
    return tuple(lines)


def pixel_difference(part: Mapping[str, Any]) -> str:
    """How far one stage, or the whole path, is from the reference's.

    Args:
        part: ``pipelines.parity.differences.StageDifference`` as plain JSON types.
    """
    if part["max_level_diff"] is None:
        return part["mismatch"] or "nothing was compared with the reference"
    if not part["max_level_diff"]:
        return "the same pixels as the reference"
    levels = number(part["max_level_diff"])
    share = percent(100.0 * part["share_of_pixels_differing"], 1000)
    return f"at most {levels} grey levels from the reference, in {share} % of the pixels"


# Kernels are chosen by timing them, so that no two builds are the same.
BUILD = "build"


def build_options(builds: int) -> tuple[str, ...]:
    """What ``--builds`` adds to the texts of ``--option``, for backends that build plans: a Case for each build.

    Raises:
        BenchError: there cannot be so many.
    """
    if builds < 1:
        raise BenchError(f"--builds {builds} is not a number of builds", "Write for example --builds 3.")
    numbers = ",".join(str(number) for number in range(1, builds + 1))
    if builds == 1:
        return ()
    return tuple(f"{name}.{BUILD}={numbers}" for name in REGISTRY if BUILD in facts_of(name).choices)


def build_groups(cases: Iterable[Case]) -> list[tuple[Case, ...]]:
    """Cases that differ in nothing but their build, two or more of a kind, in the order given."""
    found: dict[Case, list[Case]] = {}
    for case in cases:
        if case.option(BUILD):
            others = tuple((name, value) for name, value in case.options if name != BUILD)
            found.setdefault(replace(case, options=others), []).append(case)
    return [tuple(group) for group in found.values() if len(group) > 1]


def build_lines(frame: pd.DataFrame, run: ScoredRun) -> list[str]:
    """A sentence for each group of timed Cases, and for each of accuracy Cases, that are builds of one plan.

    Cases that have no figures are left out; a group of one has nothing to differ from.
    """
    medians = {row["case_id"]: row["latency_ns_p50"] for row in records(frame) if row["latency_ns_p50"] is not None}
    found = []
    for group in build_groups(result.case for result in run.results):
        timed = [medians[case.case_id] for case in group if case.case_id in medians]
        if len(timed) > 1:
            least, most = min(timed), max(timed)
            found.append(
                f"{_build_name(group[0])}: the medians of {len(timed)} builds are {least / 1e6:.4g} to "
                f"{most / 1e6:.4g} ms; "
                f"the slowest takes {100.0 * (most / least - 1.0):.1f} % longer than the fastest"
            )
        scored = [run.predicted[case.case_id] for case in group if case.case_id in run.predicted]
        ledgers = [compare(base, other) for base, other in itertools.combinations(scored, 2)]
        if ledgers:
            worst = max(ledgers, key=lambda ledger: ledger.n_flips / ledger.n_images)
            found.append(
                f"{_build_name(group[0])}: between any two of {len(scored)} builds the top-1 class of at most "
                f"{worst.n_flips:,} of {worst.n_images:,} images differs"
            )
    return found


def _build_name(case: Case) -> str:
    """The Case without its build."""
    options = {name: value for name, value in case.options if name != BUILD}
    settings = ("backend", "device", "precision", "batch", "options")
    return row_names([{**case.to_dict(), "options": options}], settings)[0]
