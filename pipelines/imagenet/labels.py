"""Labels of image files that do not lie in class folders: val.txt, or the official development kit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipelines.imagenet.wnids import first_few, wnids
from scarlet.errors import BenchError

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
        if (place / VAL_TXT).is_file():
            return "val.txt", _val_txt(place / VAL_TXT, root, folder, names)
    for place in (root, folder):
        if (place / DEVKIT).is_dir():
            return "devkit", _devkit(place / DEVKIT, names)
    raise BenchError(
        f"the {len(names)} images in {folder} have no labels",
        f"Sort them into class folders such as n01440764, or put {VAL_TXT} or {DEVKIT.parent}/ in {root}.",
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(
            f"cannot read {path}: {error}", "Check the file; it should be plain text."
        ) from error


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
        if not name or not label.isdecimal() or int(label) > 999:
            raise BenchError(
                f"line {number} of {path} is not a file name and a label from 0 to 999: '{line.strip()[:80]}'",
                "Write one line an image, such as 'ILSVRC2012_val_00000001.JPEG 65'.",
            )
        if name in labels:
            raise BenchError(f"line {number} of {path} names {name} again", "Give each image one line.")
        if name not in here:
            missing.append(f"{name} (line {number})")
        labels[name] = int(label)
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
        if not line.strip().isdecimal() or int(line) not in label_of_id:
            raise BenchError(
                f"line {number} of {truth_path} is not an id from 1 to 1000: '{line.strip()[:80]}'",
                "Unpack ILSVRC2012_devkit_t12.tar.gz anew.",
            )
        truth.append(label_of_id[int(line)])
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
