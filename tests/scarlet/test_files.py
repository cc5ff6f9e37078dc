"""Files of people are data: nothing waits, nothing runs, nothing grows."""

import os
import socket
from pathlib import Path

import pytest

from scarlet.errors import BenchError
from scarlet.files import YAML_BYTES_MAX, read_bytes, read_text, read_yaml


def special(folder: Path) -> dict[str, Path]:
    """What is no regular file, by what it is."""
    made = {name: folder / name for name in ("fifo", "folder", "loop", "zero", "null", "socket", "dangling")}
    os.mkfifo(made["fifo"])
    made["folder"].mkdir()
    made["loop"].symlink_to(made["loop"])
    made["dangling"].symlink_to(folder / "none")
    made["zero"].symlink_to("/dev/zero")
    made["null"].symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(folder)  # a socket's path is short
        listening.bind("socket")
    return made


def test_only_regular_files_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "not a regular|irectory|symbolic links|device or address|such file"
    for path in special(tmp_path).values():
        with pytest.raises(OSError, match=said):
            read_bytes(path, 100)


def test_a_link_is_followed_to_a_file_and_no_byte_more_is_read_than_allowed(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="more than"):
        read_bytes(tmp_path / "link", 4)
    (tmp_path / "file").write_bytes(b"\xff")
    with pytest.raises(OSError, match="UTF-8"):
        read_text(tmp_path / "file")


BOMBS = {
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "depth": "a: " + "[" * 5000,
    "block depth": "\n".join(" " * level + "a:" for level in range(500)),
    "digits": "seed: " + "9" * 5000,
    "sexagesimal": "seed: " + ":".join(["59"] * 2000),
    "a thirteenth month": "seed: 2001-13-45",
    "a number that is none": "seed: !!int abc",
    "a time that is none": "seed: !!timestamp abc",
    "a truth that is none": "seed: !!bool abc",
    "code": "seed: !!python/object/apply:os.system [true]",
    "zero byte": 'seed: "\\0"',
    "twice": "a: 1\na: 2",
    "a list as key": "? [a]\n: b",
    "size": "a: " + "x" * YAML_BYTES_MAX,
    "nothing": "",
    "a list": "[a]",
    "not text": "a: \x07",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_yaml_that_makes_much_of_little_is_refused_in_a_line(bomb, tmp_path):
    (tmp_path / "plan.yaml").write_text(BOMBS[bomb])
    with pytest.raises(BenchError) as caught:
        read_yaml(tmp_path / "plan.yaml", "the plan", "Give another.", "a: 1")
    assert "plan.yaml" in caught.value.what
    assert len(caught.value.what) < 300 + len(str(tmp_path))
    assert "\n" not in caught.value.what


def test_ordinary_yaml_is_read(tmp_path):
    (tmp_path / "x.yaml").write_text("\ufeffa: [1, 2.5, yes, null]\nb: {c: d}\n", encoding="utf-8")
    found = read_yaml(tmp_path / "x.yaml", "it", "", "a: 1")
    assert found == {"a": [1, 2.5, True, None], "b": {"c": "d"}}


def test_a_special_file_is_no_yaml(tmp_path):
    os.mkfifo(tmp_path / "x.yaml")
    with pytest.raises(BenchError, match="not a regular file"):
        read_yaml(tmp_path / "x.yaml", "the plan", "Give another.", "a: 1")
