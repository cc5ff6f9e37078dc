"""Which files are plain JPEGs, by their markers alone."""

import odd_images
import pytest

from pipelines.imagenet.jpeg import plain_size


def test_only_whole_ordinary_jpegs_are_plain(odd_paths, bad_paths):
    plain = {name for name, path in odd_paths.items() if plain_size(path.read_bytes())}
    assert plain == {name for name in odd_paths if not name.startswith(("cmyk", "png"))}
    for name, path in bad_paths.items():
        assert not path.exists() or plain_size(path.read_bytes()) is None or name == "without tables"


def test_the_size_comes_from_the_frame_header(odd_paths):
    assert plain_size(odd_paths["size 2400x1600"].read_bytes()) == (1600, 2400)
    assert plain_size(odd_paths["thumbnail and trailing bytes"].read_bytes()) == (375, 500)
    assert plain_size(odd_paths["exif 6"].read_bytes()) == (375, 500)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (1, 0xC3),  # lossless
        (1, 0xC9),  # arithmetic coding
        (4, 12),  # bits a sample
        (6, 0),  # height, which a later marker would give
        (9, 2),  # components
    ],
)
def test_frames_that_decoders_treat_differently_are_not_plain(offset, value):
    data = bytearray(odd_images.jpeg(odd_images.photo(40, 30)))
    frame = odd_images.segment(data, 0xC0).start
    assert plain_size(bytes(data)) == (30, 40)
    data[frame + offset] = value
    assert plain_size(bytes(data)) is None


def test_fill_bytes_are_skipped_and_damaged_headers_are_not_plain():
    data = odd_images.jpeg(odd_images.photo(40, 30))
    frame = odd_images.segment(data, 0xC0)
    assert plain_size(data[: frame.start] + b"\xff\xff" + data[frame.start :]) == (30, 40)
    assert plain_size(data[: frame.start] + b"junk" + data[frame.start :]) is None
    assert plain_size(data[: frame.start] + data[frame] + data[frame.start :]) is None  # two frames
    assert plain_size(data[: frame.start] + data[frame.stop :]) is None  # none
    assert plain_size(data[: frame.start] + b"\xff\xd0\x00\x02" + data[frame.start :]) is None  # stray restart
    assert plain_size(data[: frame.start] + b"\xff\xfe\x00\x01" + data[frame.start :]) is None  # impossible length
