"""Finds and labels the images of an ImageNet-layout validation set."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scarlet.errors import BenchError
from scarlet.files import read_bytes, read_text

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")

# Where the images may be under the data folder; the first of these that holds any is taken. The last but one
# are the official archive's and Kaggle's.
PLACES = ("valid", "val", "ILSVRC2012_img_val", "Data/CLS-LOC/val", "ILSVRC/Data/CLS-LOC/val", "")

# Of one encoded image.
IMAGE_BYTES_MAX = 64 * 2**20

# Written by pipelines.demo.make into the folder of a set that it made.
DEMO_MARKER = ".scarlet-demo.json"


@dataclass(frozen=True)
class Image:
    """One validation image.

    Attributes:
        image_id: path relative to the data folder, with forward slashes; stable across machines.
        path: where the file is.
        label: class index 0..999: the wnid's place among all 1000 sorted wnids.
    """

    image_id: str
    path: Path
    label: int


@dataclass(frozen=True)
class ImageSet:
    """The images found under a data folder.

    Attributes:
        root: the folder the ids are relative to.
        images: in order of ``image_id``.
        layout: ``folders``, ``val.txt`` or ``devkit``.
        fingerprint: hex SHA-256 over ids, labels and file sizes; equal sets have equal fingerprints. Contents
            are not read: that would take minutes for 50,000 files.
        is_demo: the set was made by ``pipelines.demo.make``.
        passed_over: folders, and links to such, that may not be entered and in which nothing was looked for.
    """

    root: Path
    images: tuple[Image, ...]
    layout: str
    fingerprint: str
    is_demo: bool = False
    passed_over: tuple[str, ...] = ()


def read_image(path: Path) -> bytes:
    """The contents of an image's file.

    Raises:
        OSError: it is missing, may not be read, is no regular file, or is longer than ``IMAGE_BYTES_MAX``.
    """
    return read_bytes(path, IMAGE_BYTES_MAX)


@dataclass
class _Found:
    """What one folder holds: file sizes in bytes by name, directly inside and by class folder."""

    folder: Path
    flat: dict[str, int] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)


def find_images(data: Path) -> ImageSet:
    """Finds the validation images under ``data`` and labels them.

    Looks in ``valid``, ``val``, the folders of the official and of Kaggle's archive, then in ``data`` itself,
    and takes the first that holds images, in one of three layouts:

    - class folders named by wnid, any number of the 1000; the label never depends on which are there;
    - files without folders, and ``val.txt`` beside or above them with a line ``name label`` for each
      (labels 0..999, as Caffe's ``val.txt``);
    - files named ``ILSVRC2012_val_00000001.JPEG`` and so on, and the official development kit in ``data``.

    Files are images by their suffix (jpeg, jpg, png in any case); hidden ones are ignored. One ``stat`` a
    file is made, and no file is opened: whether it can be decoded shows when it is.

    Raises:
        BenchError: there is no such folder, no image, no label for an image, or a folder cannot be read.
    """
    root = Path(os.path.abspath(Path(data).expanduser()))
    if not os.path.isdir(root):
        wrong = f"{root} is not a folder" if os.path.lexists(root) else f"there is no folder {root}"
        raise BenchError(wrong, "Give the folder that holds the validation images.")
    for place in PLACES:
        folder = root / place
        if not os.path.isdir(folder):  # no question to a path that raises, as a link to itself would
            continue
        found = _scan(folder)
        if found.unknown:
            raise _unknown_folders(found)
        if found.classes and found.flat:
            raise BenchError(
                f"{len(found.flat)} images lie beside the class folders of {folder}, and so have no class: "
                f"{first_few(sorted(found.flat))}",
                "Move them into class folders or out of the data folder.",
            )
        if found.classes or found.flat:
            return _image_set(root, found)
    raise BenchError(
        f"{root} holds no images (*{', *'.join(IMAGE_SUFFIXES)})",
        "Expected are class folders such as n01440764, in this folder or in valid/ or val/ inside it.",
    )


def _scan(folder: Path) -> _Found:
    found = _Found(folder)
    known = frozenset(wnids())
    places = {place.split("/")[0] for place in PLACES}
    for entry in _entries(folder):
        is_class = entry.name in known
        if os.path.isdir(entry.path):
            try:
                images = dict(_image_sizes(Path(entry.path)) if is_class or entry.name not in places else ())
            except BenchError:
                if is_class and not entry.is_symlink():
                    raise
                found.closed.append(entry.name)
                continue
            if is_class and images:
                found.classes[entry.name] = images
            elif images:
                found.unknown.append(entry.name)
        elif _is_image(entry):
            found.flat[entry.name] = _size_bytes(entry)
        elif entry.is_symlink() and (is_class or entry.name in places):
            found.closed.append(entry.name)
    return found


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, without hidden entries."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise BenchError(
            f"cannot read the folder {folder}: {error.strerror}", "Check its permissions and the disk."
        ) from error


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(IMAGE_SUFFIXES)


def _image_sizes(folder: Path) -> Iterator[tuple[str, int]]:
    for entry in _entries(folder):
        if _is_image(entry) and not os.path.isdir(entry.path):
            yield entry.name, _size_bytes(entry)


def _size_bytes(entry: os.DirEntry[str]) -> int:
    """The file's size, -1 for a dangling link: it stays in the set, and is listed as bad when it is read."""
    try:
        return entry.stat().st_size
    except OSError:
        return -1


def _unknown_folders(found: _Found) -> BenchError:
    count = len(found.unknown)
    folders = "a folder" if count == 1 else f"{count} folders"
    return BenchError(
        f"{found.folder} holds {folders} of images that no ImageNet class is named by: "
        f"{first_few(sorted(found.unknown))}",
        "Class folders are named by one of the 1000 wnids of ILSVRC2012, n and eight digits, such as n01440764.",
    )


def _image_set(root: Path, found: _Found) -> ImageSet:
    if found.classes:
        layout = "folders"
        place = {wnid: label for label, wnid in enumerate(wnids())}
        files = [
            (f"{wnid}/{name}", place[wnid], size)
            for wnid, sizes in found.classes.items()
            for name, size in sizes.items()
        ]
    else:
        layout, labels = flat_labels(root, found.folder, sorted(found.flat))
        files = [(name, labels[name], size) for name, size in found.flat.items()]
    below = found.folder.relative_to(root).as_posix()
    prefix = "" if below == "." else f"{below}/"
    files.sort()
    digest = hashlib.sha256()
    images = []
    for name, label, size in files:
        image_id = prefix + name
        try:
            digest.update(f"{image_id}\0{label}\0{size}\n".encode())
        except UnicodeEncodeError as error:
            raise BenchError(f"the file name {image_id!r} is not valid UTF-8", "Rename the file.") from error
        images.append(Image(image_id, found.folder / name, label))
    is_demo = (root / DEMO_MARKER).is_file()
    return ImageSet(root, tuple(images), layout, digest.hexdigest(), is_demo, tuple(sorted(found.closed)))


def subset(images: Sequence[Image], n: int, seed: int = 0) -> tuple[Image, ...]:
    """``n`` of the images, as evenly over the classes as they allow, in order of their ids.

    Every class gives one image before any gives a second. The order within and among classes comes from
    hashes of the seed with ids and labels: the same on every machine, and a larger subset contains a smaller.

    Args:
        images: what to choose from.
        n: how many; all of them where there are not so many.
        seed: another seed, another choice.

    Raises:
        ValueError: ``n`` is below one.
    """
    if n < 1:
        raise ValueError(f"a subset needs at least one image, not {n}")
    by_class: dict[int, list[Image]] = defaultdict(list)
    for image in images:
        by_class[image.label].append(image)
    turns = []
    for label, members in by_class.items():
        members.sort(key=lambda image: _rank(seed, image.image_id))
        class_rank = _rank(seed, str(label))
        turns += [(turn, class_rank, image) for turn, image in enumerate(members)]
    turns.sort(key=lambda item: item[:2])
    return tuple(sorted((image for _, _, image in turns[:n]), key=lambda image: image.image_id))


def _rank(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode()).digest()


VAL_TXT = "val.txt"
DEVKIT = Path("ILSVRC2012_devkit_t12", "data")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"

_OFFICIAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)


def flat_labels(root: Path, folder: Path, names: Sequence[str]) -> tuple[str, dict[str, int]]:
    """The layout (``val.txt`` or ``devkit``) and the label 0..999 of each file.

    Args:
        root: the data folder.
        folder: where the images are: ``root`` or below it.
        names: the images' file names, sorted.

    Raises:
        BenchError: there are no labels, or they do not fit the files.
    """
    for place in (folder, root):
        if os.path.isfile(place / VAL_TXT):
            return "val.txt", _val_txt(place / VAL_TXT, root, folder, names)
    for place in (root, folder):
        if os.path.isdir(place / DEVKIT):
            return "devkit", _devkit(place / DEVKIT, names)
    raise BenchError(
        f"the {len(names)} images in {folder} have no labels",
        f"Sort them into class folders such as n01440764, or put {VAL_TXT} or {DEVKIT.parent}/ in {root}.",
    )


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path).splitlines()
    except OSError as error:
        wrong = f"cannot read {path}: {error.strerror}"
        raise BenchError(wrong, "Check the file; it should be plain text.") from error


def _whole(text: str) -> int:
    """A number of at most nine digits; -1 for anything else."""
    return int(text) if text.isdecimal() and len(text) < 10 else -1


def _val_txt(path: Path, root: Path, folder: Path, names: Sequence[str]) -> dict[str, int]:
    """Reads lines of ``name label``. Names are relative to the image folder or to the data folder."""
    below = folder.relative_to(root).as_posix()
    here = set(names)
    labels: dict[str, int] = {}
    missing: list[str] = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        # From the right: file names may hold blanks.
        name, _, label = line.strip().rpartition(" ") if "\t" not in line else line.strip().rpartition("\t")
        name = name.strip().removeprefix("./").removeprefix(f"{below}/")
        if not name or not 0 <= _whole(label) <= 999:
            raise BenchError(
                f"line {number} of {path} is not a file name and a label from 0 to 999: '{line.strip()[:80]}'",
                "Write one line an image, such as 'ILSVRC2012_val_00000001.JPEG 65'.",
            )
        if name in labels:
            raise BenchError(f"line {number} of {path} names {name} again", "Give each image one line.")
        if name not in here:
            missing.append(f"{name} (line {number})")
        labels[name] = _whole(label)
    if missing:
        raise _mismatch(f"{path} names {_count(missing)} not in {folder}", missing)
    unlisted = [name for name in names if name not in labels]
    if unlisted:
        raise _mismatch(f"{path} has no line for {_count(unlisted)} in {folder}", unlisted)
    return labels


def _count(names: Sequence[str]) -> str:
    return "an image that is" if len(names) == 1 else f"{len(names)} images that are"


def _mismatch(what: str, names: Sequence[str]) -> BenchError:
    return BenchError(f"{what}: {first_few(names)}", "Make the list and the folder hold the same images.")


def _devkit(folder: Path, names: Sequence[str]) -> dict[str, int]:
    """Labels from the ground truth's ids (1..1000), which ``meta.mat`` maps to wnids."""
    truth_path = folder / GROUND_TRUTH
    label_of_id = _labels_by_id(folder / META)
    truth: list[int] = []
    for number, line in enumerate(_lines(truth_path), start=1):
        if _whole(line.strip()) not in label_of_id:
            raise BenchError(
                f"line {number} of {truth_path} is not an id from 1 to 1000: '{line.strip()[:80]}'",
                "Unpack ILSVRC2012_devkit_t12.tar.gz anew.",
            )
        truth.append(label_of_id[_whole(line.strip())])
    labels: dict[str, int] = {}
    for name in names:
        match = _OFFICIAL_NAME.fullmatch(name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(truth):
            raise BenchError(
                f"{name} is none of the {len(truth)} images that {truth_path} labels",
                f"Their names are ILSVRC2012_val_00000001.JPEG and so on; label others by {VAL_TXT}.",
            )
        labels[name] = truth[number - 1]
    return labels


def _labels_by_id(path: Path) -> dict[int, int]:
    """The label of each ILSVRC2012 id. The two orders differ: ids are not sorted by wnid."""
    from scipy.io import loadmat  # half a second to import, for this layout only

    place = {wnid: label for label, wnid in enumerate(wnids())}
    try:
        synsets = loadmat(path, simplify_cells=True)["synsets"]
        wnid_of_id = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
        # Ids above 1000 are inner nodes of the hierarchy, which label no image.
        return {number: place[wnid_of_id[number]] for number in range(1, len(place) + 1)}
    except Exception as error:  # a damaged MATLAB file can make scipy raise almost anything
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise BenchError(
            f"cannot read the classes from {path} ({reason})", "Unpack ILSVRC2012_devkit_t12.tar.gz anew."
        ) from error


SHOWN = 3


def wnids() -> tuple[str, ...]:
    """The 1000 WordNet ids of ILSVRC2012, sorted: a label is a place in this list."""
    return tuple(Path(__file__).with_name("wnids.txt").read_text(encoding="ascii").split())


def first_few(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
