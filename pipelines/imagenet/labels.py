"""What classes there are, in the order of a network's logits, and how a list of labels is to be read.

A list that can be read in two ways is never read in silence: ``Reading`` says which way was taken.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from scarlet.errors import BenchError, shown
from scarlet.files import read_text

VAL_TXT = "val.txt"
KAGGLE = "LOC_val_solution.csv"
DEVKIT = Path("ILSVRC2012_devkit_t12", "data")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"

BACKGROUND = "background"  # as a value of --classes: class 0, before the 1000 of ImageNet
BACKGROUNDS = (BACKGROUND, "__background__", "dummy")

_OFFICIAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)
_NAMED_BY_WNID = re.compile(r".+_(n\d{8})\.\w+")
# Of the first images of ILSVRC2012's validation set: their classes as Caffe's val.txt has them (places among the sorted
# wnids), and their ids in the development kit, of which a list without the kit cannot be mapped to classes.
_FIRST_CLASSES = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332)
_FIRST_IDS = (490, 361, 171, 822, 297, 482, 13, 704, 599, 164)
_ENOUGH = 3  # of these, to know a list by


@dataclass(frozen=True)
class Labelling:
    """How a user wants images to be labelled.

    Attributes:
        classes: file with the classes in the order of the logits (see ``read_classes``), ``background``, or None for
            ImageNet's 1000.
        labels: file with a line ``name label`` for each image of a flat folder; None to look for one.
        first_label: what such a list calls the first class, 0 or 1; None to find out.
    """

    classes: str | None = None
    labels: str | None = None
    first_label: int | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The classes in the order of the logits."""
        return read_classes(self.classes)

    @property
    def background(self) -> bool:
        """The first class is none of an image's."""
        return self.names[0].lower() in BACKGROUNDS


def wnids() -> tuple[str, ...]:
    """The 1000 WordNet ids of ILSVRC2012, sorted: a label is a place in this list."""
    return tuple(Path(__file__).with_name("wnids.txt").read_text(encoding="ascii").split())


def spoken(names: Sequence[str]) -> Callable[[int], str]:
    """What to call a class for people, by its label: a wnid of ImageNet with WordNet's first word for it."""
    words = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").splitlines()
    word = dict(zip(wnids(), words, strict=True))
    return lambda label: " ".join(filter(None, (names[label], word.get(names[label]))))


def read_classes(source: str | None) -> tuple[str, ...]:
    """The classes in the order of the logits, by the names that class folders and lists have for them.

    A file has a class a line: a name; a wnid, whatever follows it (``synset_words.txt``); or a number with a name or a
    wnid (``map_clsloc.txt``), numbered from 0 or 1 in any order. Lines that begin with ``# `` are comments.

    Raises:
        BenchError: it cannot be read, is empty, or has a class twice.
    """
    if source is None or source == BACKGROUND:
        return (*((BACKGROUND,) if source else ()), *wnids())
    path = Path(source)
    lines = [line.strip() for line in _lines(path) if line.strip() and not line.startswith("# ")]
    try:
        if not lines or lines[0][0] in "{[":
            raise ValueError("JSON is not read" if lines else "it is empty")
        names = _of_lines(lines)
        ((often, count),) = Counter(names).most_common(1)
        if len(names) < 2 or count > 1:
            raise ValueError("fewer than two" if len(names) < 2 else f"{shown(often)} stands there twice")
    except (ValueError, IndexError) as error:
        do = "Write each class once, a line each, in the logits' order; wnids tell all of them apart."
        raise BenchError(f"{path} does not list classes: {error}", do) from None
    return names


def _of_lines(lines: Sequence[str]) -> tuple[str, ...]:
    head = lines[:1] if lines[0].lower() in BACKGROUNDS else []
    words = [line.replace(",", " ").split() for line in lines[len(head) :]]
    if all(re.fullmatch(r"n\d{8}", line[0]) for line in words):
        if all(len(line) > 1 and line[1].isdecimal() for line in words):
            return (*head, *_numbered((int(line[1]), line[0]) for line in words))
        return (*head, *(line[0] for line in words))
    numbered = [match for line in lines if (match := re.fullmatch(r"(\d+)\s*[\s,:]\s*(.+)", line))]
    if len(numbered) < len(lines):
        return tuple(lines)
    return _numbered((int(match[1]), match[2].strip("'\", ")) for match in numbered)


def _numbered(pairs: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    numbers, names = zip(*sorted(pairs), strict=True)
    if numbers[0] not in (0, 1) or numbers != tuple(range(numbers[0], numbers[0] + len(numbers))):
        raise ValueError("its numbers are not 0, 1, 2 and so on")
    return names


@dataclass(frozen=True)
class Reading:
    """How images were labelled.

    Attributes:
        layout: ``folders``, ``numbered folders``, ``val.txt``, ``names``, ``devkit``, or the name of a list.
        labels: of each file, by its name.
        notes: which reading was taken, and what was left out: sentences.
    """

    layout: str
    labels: Mapping[str, int]
    notes: tuple[str, ...] = ()


def flat_labels(root: Path, folder: Path, names: Sequence[str], how: Labelling) -> Reading:
    """The labels of files without class folders: by the list that was given, by their own names, or by a list or the
    development kit beside or above them.

    Args:
        root: the data folder.
        folder: where the images are: ``root`` or below it.
        names: the images' file names, sorted.

    Raises:
        BenchError: there are no labels, or they do not fit the files.
    """
    if how.labels:
        return _listed(Path(how.labels), root, folder, names, how)
    by_name = [_NAMED_BY_WNID.fullmatch(name) for name in names]
    place = {name: label for label, name in enumerate(how.names)}
    if all(match and match[1] in place for match in by_name):
        return Reading("names", {name: place[match[1]] for name, match in zip(names, by_name, strict=True) if match})
    for where in (folder, root, *root.glob("ILSVRC")):
        for name in (VAL_TXT, KAGGLE):
            if os.path.isfile(where / name):
                return _listed(where / name, root, folder, names, how)
    for where in (root, folder):
        if os.path.isdir(where / DEVKIT):
            return Reading("devkit", _devkit(where / DEVKIT, names, place))
    raise BenchError(
        f"the {len(names)} images in {folder} have no labels",
        f"Sort them into class folders such as n01440764, put {VAL_TXT}, {KAGGLE} or {DEVKIT.parent}/ in {root}, or "
        "give a list with --labels.",
    )


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path).splitlines()
    except OSError as error:
        wrong = f"cannot read {path}: {error.strerror}"
        raise BenchError(wrong, "Check the file; it should be plain text.") from error


def whole(text: str) -> int:
    """A number of at most nine digits; -1 for anything else."""
    return int(text) if text.isdecimal() and len(text) < 10 else -1


def _listed(path: Path, root: Path, folder: Path, names: Sequence[str], how: Labelling) -> Reading:
    """Reads lines of ``name label``. Names are relative to the image folder or to the data folder; without a suffix in
    Kaggle's list, whose labels are wnids with the boxes of objects. A label is a number or a class.
    """
    below = folder.relative_to(root).as_posix()
    is_csv = path.suffix.lower() == ".csv"
    here = {Path(name).stem if is_csv else name: name for name in names}
    place, background = {name: label for label, name in enumerate(how.names)}, how.background
    most = len(how.names) - background
    given: dict[str, int | str] = {}
    for number, line in enumerate(map(str.strip, _lines(path)), start=1):
        if not line or (is_csv and number == 1 and line.lower().startswith("imageid")):
            continue
        if is_csv:
            name, _, label = line.partition(",")
            name, label = Path(name).stem, (label.split() or [""])[0]
        else:  # from the right: file names may hold blanks
            name, _, label = line.rpartition("\t" if "\t" in line else " ")
        name = name.strip().removeprefix("./").removeprefix(f"{below}/")
        if not name or not (label in place or 0 <= whole(label) <= most):
            raise BenchError(
                f"line {number} of {path} is not a file name and a label from 0 to {most - 1}: '{line[:80]}'",
                "Write one line an image, such as 'ILSVRC2012_val_00000001.JPEG 65'.",
            )
        if name in given:
            raise BenchError(f"line {number} of {path} names {name} again", "Give each image one line.")
        given[name] = label if label in place else whole(label)
    if unlisted := [here[name] for name in here if name not in given]:
        count = "an image that is" if len(unlisted) == 1 else f"{len(unlisted)} images that are"
        what = f"{path} has no line for {count} in {folder}: {first_few(unlisted)}"
        raise BenchError(what, "Add them to the list, or take them out of the folder.")
    numbers = {name: value for name, value in given.items() if isinstance(value, int)}
    first, why = _first_label(path, numbers, most, how.first_label) if numbers else (0, "")
    notes = [f"{path.name}: {why}"] if why else []
    if more := [name for name in given if name not in here]:
        notes.append(f"{path.name} also names {len(more):,} that are not in {folder}, such as {more[0]}")
    labels = {
        here[name]: place[value] if isinstance(value, str) else value - first + background
        for name, value in given.items()
        if name in here
    }
    return Reading(path.name, labels, tuple(notes))


def _first_label(path: Path, numbers: Mapping[str, int], most: int, wanted: int | None) -> tuple[int, str]:
    """What a list calls the first class, 0 or 1, and how that is known.

    Raises:
        BenchError: the numbers are of another order or fit neither.
    """
    official = ((_OFFICIAL_NAME.fullmatch(f"{Path(name).stem}.JPEG"), number) for name, number in numbers.items())
    known = [
        (int(match[1]) - 1, number) for match, number in official if match and 1 <= int(match[1]) <= len(_FIRST_IDS)
    ]
    of_ids, apart = ({number - first[image] for image, number in known} for first in (_FIRST_IDS, _FIRST_CLASSES))
    if len(known) >= _ENOUGH and of_ids in ({0}, {-1}):
        raise BenchError(
            f"{path} has the ids of the development kit, whose order is not that of the classes",
            f"Put {DEVKIT.parent}/ beside the images, whose {META} tells the classes, and take {path.name} away.",
        )
    if len(known) >= _ENOUGH and wanted is None and most == len(wnids()) and apart in ({0}, {1}):
        (first,) = apart
        return first, f"labels from {first}, as the first images show"
    low, high = min(numbers.values()), max(numbers.values())
    if (low == 0 and wanted == 1) or (high == most and (low == 0 or wanted == 0)):
        counted = "0 or 1" if wanted is None else wanted
        what = f"{path} has labels from {low} to {high}, and there are {most} classes, numbered from {counted}"
        raise BenchError(what, "Correct the list, or name the classes with --classes FILE.")
    if wanted is not None:
        return wanted, f"labels from {wanted}, as --first-label says"
    if high == most:
        return 1, f"labels from 1, because {most} is among them and 0 is not"
    return 0, f"labels from 0{'' if low == 0 else '; 0 is not among them: if they are from 1, give --first-label 1'}"


def _devkit(folder: Path, names: Sequence[str], place: Mapping[str, int]) -> dict[str, int]:
    """Labels from the ground truth's ids (1..1000), which ``meta.mat`` maps to wnids: they are not sorted by these."""
    from scipy.io import loadmat  # half a second to import, for this layout only

    truth_path, unpack = folder / GROUND_TRUTH, "Unpack ILSVRC2012_devkit_t12.tar.gz anew."
    try:
        synsets = loadmat(folder / META, simplify_cells=True)["synsets"]
        wnid_of_id = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
        # Ids above 1000 are inner nodes of the hierarchy, which label no image.
        label_of_id = {str(number): place[wnid_of_id[number]] for number in range(1, 1 + len(wnids()))}
    except Exception as error:  # a damaged MATLAB file can make scipy raise almost anything
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise BenchError(f"cannot read the classes from {folder / META} ({reason})", unpack) from error
    truth = [line.strip() for line in _lines(truth_path)]
    for number, line in enumerate(truth, start=1):
        if line not in label_of_id:
            raise BenchError(f"line {number} of {truth_path} is not an id from 1 to 1000: '{line[:80]}'", unpack)
    labels: dict[str, int] = {}
    for name in names:
        match = _OFFICIAL_NAME.fullmatch(name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(truth):
            raise BenchError(
                f"{name} is none of the {len(truth)} images that {truth_path} labels",
                f"Their names are ILSVRC2012_val_00000001.JPEG and so on; label others by {VAL_TXT}.",
            )
        labels[name] = label_of_id[truth[number - 1]]
    return labels


def first_few(names: Sequence[str]) -> str:
    """The first three names of a list, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
