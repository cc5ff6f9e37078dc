"""Finds and labels the images of an ImageNet-layout validation set."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.imagenet.labels import Labelling, Reading, flat_labels, spoken
from pipelines.imagenet.labels import first_few as first_few
from pipelines.imagenet.labels import wnids as wnids
from scarlet.errors import BenchError
from scarlet.files import read_bytes

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
# Of pictures that others read and this does not: they are counted, and said.
OTHER_SUFFIXES = (".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".heic", ".jp2", ".jxl", ".npy")

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
        label: place of its class among the network's: of ImageNet 0..999, the wnid's place among all 1000 sorted ones.
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
        layout: see ``pipelines.imagenet.labels.Reading``.
        fingerprint: hex SHA-256 over ids, labels and file sizes; equal sets have equal fingerprints. Contents
            are not read: that would take minutes for 50,000 files.
        is_demo: the set was made by ``pipelines.demo.make``.
        classes: every class by its label.
        notes: how labels were read, and what files were passed over: sentences.
    """

    root: Path
    images: tuple[Image, ...]
    layout: str
    fingerprint: str
    is_demo: bool = False
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def present(self) -> tuple[int, ...]:
        """The classes that have images, sorted."""
        return tuple(sorted({image.label for image in self.images}))

    def reading(self) -> list[str]:
        """What was taken for what, for people to check: the layout, three images with their classes, and the notes."""
        images, n, say = self.images, len(self.images), spoken(self.classes)
        of = f"{len(self.present):,} of {len(self.classes):,} classes"
        examples = [
            f"{one.image_id} -> {say(one.label)}" for one in dict.fromkeys((images[0], images[n // 2], images[-1]))
        ]
        return [f"{n:,} images of {of}, labelled by {self.layout}: {'; '.join(examples)}", *self.notes]


def read_image(path: Path) -> bytes:
    """The contents of an image's file.

    Raises:
        OSError: it is missing, may not be read, is no regular file, or is longer than ``IMAGE_BYTES_MAX``.
    """
    return read_bytes(path, IMAGE_BYTES_MAX)


@dataclass
class _Found:
    """What one folder holds: sizes in bytes of files by class folder ("" for none) and name, folders that may not be
    entered, and what is passed over: pictures of other suffixes, and images in folders inside class folders.
    """

    folder: Path
    files: dict[tuple[str, str], int] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    n_deeper: int = 0

    @property
    def classes(self) -> list[str]:
        return sorted({class_ for class_, _ in self.files if class_})


def find_images(data: Path, how: Labelling | None = None) -> ImageSet:
    """Finds the validation images under ``data`` and labels them.

    Looks in ``valid``, ``val``, the folders of the official and of Kaggle's archive, then in ``data`` itself,
    and takes the first that holds images, in one of these layouts:

    - class folders named as the classes are, by wnid or as the user lists them; the label never depends on which are
      there;
    - class folders named by numbers, as ImageNet-V2's: places among the classes;
    - files without folders, and a list of labels: see ``pipelines.imagenet.labels.flat_labels``.

    Files are images by their suffix (jpeg, jpg, png in any case); hidden ones are ignored. One ``stat`` a
    file is made, and no file is opened: whether it can be decoded shows when it is.

    Raises:
        BenchError: there is no such folder, no image, no label for an image, or a folder cannot be read.
    """
    how = how or Labelling()
    root = Path(os.path.abspath(Path(data).expanduser()))
    if not os.path.isdir(root):
        wrong = f"{root} is not a folder" if os.path.lexists(root) else f"there is no folder {root}"
        raise BenchError(wrong, "Give the folder that holds the validation images.")
    n_deeper, known = 0, frozenset(how.names)
    for place in PLACES:
        folder = root / place
        if not os.path.isdir(folder):  # no question to a path that raises, as a link to itself would
            continue
        found = _scan(folder, known)
        flat = sorted(name for class_, name in found.files if not class_)
        if flat and found.classes:
            raise BenchError(
                f"{len(flat)} images lie beside the class folders of {folder}, and so have no class: {first_few(flat)}",
                "Move them into class folders or out of the data folder.",
            )
        if found.files:
            read = flat_labels(root, folder, flat, how) if flat else _by_folder(found, how)
            return _image_set(root, found, read, how)
        n_deeper += found.n_deeper
    deeper = f", but {n_deeper:,} in folders inside class folders" if n_deeper else ""
    raise BenchError(
        f"{root} holds no images (*{', *'.join(IMAGE_SUFFIXES)}){deeper}",
        "Expected are class folders such as n01440764, in this folder or in valid/ or val/ inside it.",
    )


def _scan(folder: Path, known: frozenset[str]) -> _Found:
    found = _Found(folder)
    places = {place.split("/")[0] for place in PLACES}
    for entry in _entries(folder):
        is_class = entry.name in known
        if not os.path.isdir(entry.path):
            if entry.is_symlink() and (is_class or entry.name in places):
                found.closed.append(entry.name)
            else:
                _take(entry, "", found)
        elif is_class or entry.name not in places:
            is_counted = is_class or entry.name.isdecimal()
            try:
                for inner in _entries(Path(entry.path)):
                    if not os.path.isdir(inner.path):
                        _take(inner, entry.name, found, is_counted)
                    elif is_counted:
                        found.n_deeper += _count_images(inner.path)
            except BenchError:
                if is_class and not entry.is_symlink():
                    raise
                found.closed.append(entry.name)
    return found


def _take(entry: os.DirEntry[str], class_: str, found: _Found, is_counted: bool = True) -> None:
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        found.files[class_, entry.name] = size_bytes(entry)
    elif is_counted and suffix in OTHER_SUFFIXES:
        found.others[suffix] += 1


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, without hidden entries."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise BenchError(
            f"cannot read the folder {folder}: {error.strerror}", "Check its permissions and the disk."
        ) from error


def _count_images(folder: str | Path) -> int:
    """In all folders below; links are not followed."""
    return sum(
        name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        for _, _, names in os.walk(folder)
        for name in names
    )


def size_bytes(entry: os.DirEntry[str] | Path) -> int:
    """The file's size, -1 for a dangling link: it stays in the set, and is listed as bad when it is read."""
    try:
        return entry.stat().st_size
    except OSError:
        return -1


def _by_folder(found: _Found, how: Labelling) -> Reading:
    """The labels of class folders, by their names.

    Raises:
        BenchError: folders are named neither as classes nor all by numbers.
    """
    place = {name: label for label, name in enumerate(how.names)}
    most = len(how.names) - how.background
    unknown = sorted(name for name in found.classes if name not in place)
    if how.labels or (how.first_label is not None and not unknown):
        given = "--labels" if how.labels else "--first-label"
        what = f"{found.folder} has class folders, and {given} is of images without"
        raise BenchError(what, f"Leave {given} out, or give another --data.")
    if not unknown:
        return Reading("folders", {name: place[name] for name in found.classes})
    numbers = {name: int(name) for name in found.classes if name.isdecimal() and len(name) < 10}
    low, high = min(numbers.values(), default=0), max(numbers.values(), default=0)
    first = int(low > 0 and high == most) if how.first_label is None else how.first_label
    if len(numbers) == len(found.classes) == len(set(numbers.values())) and first <= low and high - first < most:
        labels = {name: number - first + how.background for name, number in numbers.items()}
        return Reading("numbered folders", labels, (f"folders named by the places of classes, counted from {first}",))
    raise BenchError(
        f"{found.folder} holds {'a folder' if len(unknown) == 1 else f'{len(unknown)} folders'} of images that no "
        f"{'class of ' + how.classes if how.classes else 'ImageNet class'} is named by: {first_few(unknown)}",
        "Name class folders by ImageNet's wnids, such as n01440764, or list their names in the order of the network's "
        "logits: --classes FILE.",
    )


def _image_set(root: Path, found: _Found, read: Reading, how: Labelling) -> ImageSet:
    files = [
        (f"{class_}/{name}" if class_ else name, read.labels[class_ or name], size)
        for (class_, name), size in found.files.items()
    ]
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
    notes = (*read.notes, *_passed_over(root, found))
    return ImageSet(root, tuple(images), read.layout, digest.hexdigest(), is_demo, how.names, notes)


def _passed_over(root: Path, found: _Found) -> Iterator[str]:
    """Sentences on files that may have been meant to be images of the set, and folders that may hold some."""
    if found.closed:
        yield f"passed over, because they may not be entered: {first_few(sorted(found.closed))}"
    if found.others:
        kinds = ", ".join(f"{n:,} *{suffix}" for suffix, n in sorted(found.others.items()))
        yield f"passed over: {kinds} (read are *{', *'.join(IMAGE_SUFFIXES)})"
    if found.n_deeper:
        yield f"passed over: {found.n_deeper:,} images in folders inside class folders"
    for place in filter(None, PLACES):
        other = root / place
        if os.path.isdir(other) and not os.path.samefile(other, found.folder) and (n := _count_images(other)):
            yield f"passed over: {n:,} images in {place}/, a second folder beside {found.folder}"


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
