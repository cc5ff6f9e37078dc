"""Were labels, classes and logits read as they are meant? What a row's predictions show of a wrong reading.

Pure functions of predictions and labels. Each finding has its reason and the option that settles it; none is made of
fewer images than would show it by chance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.analysis.accuracy.predictions import ScoredRun
from scarlet.errors import BenchError
from scarlet.files import read_json

Labels = NDArray[np.integer[Any]]

MIN_IMAGES = 8  # that agree before anything is said
SHIFTED = 0.2  # share of images whose prediction is the label's neighbour; a sound network's is under 0.02
ONE_CLASS = 0.9
# A network that was trained is right on this share at least, above chance. The first is what fewer hits by it, the
# second what as many by chance may come to before neither is believed.
TRAINED, TOO_FEW, TOO_MANY = 0.2, 0.01, 1e-4


NO_LEADS = np.zeros(0, dtype=np.float32)
_DEAD = "The network is dead, or fed other pixels than it was trained on: check weights and preprocessing."


class Finding(NamedTuple):
    """What seems to be wrong, for programs and in words, and what settles it."""

    kind: str
    text: str
    advice: str


@dataclass(frozen=True)
class Read:
    """How a row was read."""

    n_logits: int
    n_classes: int  # that labels are of; 0 where it is not known
    n_among: int  # classes that predictions were chosen from
    are_probabilities: bool = False
    has_accuracy: bool = True  # weights and images are such that an accuracy means something


def judge(top1: Labels, labels: Labels, read: Read, leads: NDArray[np.float32] = NO_LEADS) -> list[Finding]:
    """What is noticed of a row, the most certain first.

    Args:
        top1: ``(n,)``, first classes.
        labels: ``(n,)``, likewise.
        read: how they came about.
        leads: ``(n,)``, of the first classes; empty where they are not known.
    """
    found = []
    if len(leads) >= MIN_IMAGES and (tied := int(np.count_nonzero(leads == 0))) >= ONE_CLASS * len(leads):
        return [Finding("one_class", f"the first classes of {tied} of {len(leads)} images tie", _DEAD)]
    if read.are_probabilities:
        advice = (
            "Leads were taken from their logarithm, as of logits; export the graph without softmax to measure those."
        )
        found.append(Finding("probabilities", "the network's outputs are probabilities: each row sums to 1", advice))
    if read.n_classes and read.n_logits > read.n_classes:
        what = f"the network has {read.n_logits:,} classes and the labels are of {read.n_classes:,}"
        is_one = read.n_logits == read.n_classes + 1
        asked = f"{what} (is class 0 background?)" if is_one else what
        one = "--classes background reads them so; " if is_one else ""
        found.append(Finding("more_classes", asked, f"{one}--classes FILE names all classes in the logits' order."))
    beyond = int(np.count_nonzero(labels >= read.n_logits))
    if beyond and 0 < read.n_logits < read.n_classes and read.has_accuracy:
        what = f"{beyond} of {len(labels)} images are of classes beyond the network's {read.n_logits:,}"
        found.append(Finding("fewer_classes", what, "--classes FILE names its classes in the logits' order."))
    if read.has_accuracy:
        found += _wrong(top1, labels, read)
    return found


def _wrong(top1: Labels, labels: Labels, read: Read) -> Iterator[Finding]:
    n, right = len(labels), int(np.count_nonzero(top1 == labels))
    if n < MIN_IMAGES:
        return
    apart = top1.astype(np.int32) - labels
    for step, name, do in (
        (1, "label + 1", "Is class 0 background? --classes background"),
        (-1, "label - 1", "Do the labels count from 1? --first-label 1"),
    ):
        count, back = (int(np.count_nonzero(apart == by)) for by in (step, -step))
        if count >= max(MIN_IMAGES, SHIFTED * n, 2 * right, 2 * back):
            advice = f"{do} reads them so; --classes FILE names the classes in the logits' order."
            yield Finding("shifted", f"{count} of {n} predictions are {name}, and {right} are the label", advice)
            return
    common = int(np.bincount(top1).max())
    if common >= ONE_CLASS * n and np.bincount(labels).max() < (ONE_CLASS - 0.2) * n:
        yield Finding("one_class", f"{common} of {n} images get the same class, {np.bincount(top1).argmax()}", _DEAD)
        return
    hits, spoke = _renamed(top1, labels)
    if hits >= max(MIN_IMAGES, 0.5 * spoke) and 2 * right < hits:
        what = f"labels follow from predictions in {hits} of {spoke} images, but {right} of {n} are the label itself"
        yield Finding(
            "other_order", what, "The classes are in another order: --classes FILE names them in the logits'."
        )
    elif _by_chance(right, n, 1 / max(2, read.n_among)):
        what = f"top-1 is no better than chance: {right} of {n} images"
        advice = "Weights, labels (--classes, --labels) or preprocessing are those of something else."
        yield Finding("chance", what, advice)


def _renamed(top1: Labels, labels: Labels) -> tuple[int, int]:
    """Images whose label is that of most others with the same prediction, and whose prediction is that of most others
    with the same label; and of how many that can be asked.
    """
    size = int(max(top1.max(), labels.max())) + 1
    pairs = top1.astype(np.int64) * size + labels
    _, place, together = np.unique(pairs, return_inverse=True, return_counts=True)
    others = together[place] - 1
    of_prediction, of_label = (np.bincount(values, minlength=size)[values] - 1 for values in (top1, labels))
    asked = (of_prediction > 0) & (of_label > 0)
    hit = asked & (2 * others > of_prediction) & (2 * others > of_label)
    # One or two classes follow from each other in other ways: all images of one class, a few of it.
    return (int(hit.sum()) if len(np.unique(labels[hit])) > 2 else 0), int(asked.sum())


def _by_chance(right: int, n: int, chance: float) -> bool:
    """Whether so many of n may be right by chance, and would not be if the network had learnt these classes."""
    from scipy.stats import binom

    learnt = chance + TRAINED * (1 - chance)
    return bool(binom.sf(right - 1, n, chance) > TOO_MANY and binom.cdf(right, n, learnt) < TOO_FEW)


def warnings_of(run: ScoredRun) -> list[dict[str, Any]]:
    """What is noticed of a run's rows, each finding once, with the ids of their Cases, for ``run.json``."""
    dataset, n_logits = run.info.get("dataset") or {}, int((run.info.get("model_files") or {}).get("classes") or 0)
    restricted = (run.info.get("settings") or {}).get("restrict_classes")
    n_among = int(dataset.get("n_classes_present") or 0) if restricted else n_logits
    metrics = {result.case.case_id: result.metrics for result in run.results}
    cases: dict[Finding, list[str]] = {}
    for case_id, one in run.predicted.items():
        probabilities = bool(metrics[case_id].get("are_probabilities"))
        read = Read(n_logits, int(dataset.get("n_classes") or 0), n_among, probabilities, not one.no_accuracy)
        for finding in judge(one.top[:, 0], one.label, read, one.margin):
            cases.setdefault(finding, []).append(case_id)
    return [{**finding._asdict(), "case_ids": ids} for finding, ids in cases.items()]


def read_real(path: str) -> dict[int, frozenset[int]]:
    """The classes of each image of ILSVRC2012's validation set by its number, from 1, as ReaL has them: a JSON list of
    lists (Beyer et al., Are we done with ImageNet?, arXiv 2006.07159).

    Raises:
        BenchError: the file is no such list.
    """
    try:
        return {number: frozenset(map(int, classes)) for number, classes in enumerate(read_json(Path(path)), start=1)}
    except (OSError, ValueError, TypeError) as error:
        raise BenchError(f"{path} holds no ReaL labels: {error}", "Give the file real.json of its authors.") from None


def score_real(run: ScoredRun, real: Mapping[int, frozenset[int]]) -> list[dict[str, Any]]:
    """Each row's share of images whose first class is one of ReaL's; those that it gives none are left out."""
    scores = []
    for case_id, one in run.predicted.items():
        numbers = [re.search(r"val_(\d{8})", str(one.image_ids[place])) for place in one.image]
        answers = [real.get(int(match[1]), frozenset()) if match else frozenset() for match in numbers]
        right = [int(first) in classes for first, classes in zip(one.top[:, 0], answers, strict=True) if classes]
        share = f"{100 * sum(right) / len(right):.2f} %" if right else "unknown"
        scores.append({"text": f"ReaL top-1 {share} of {len(right):,} images", "case_ids": [case_id]})
    return scores
