"""Every oddity of real validation sets as a file, made by Pillow and, where it cannot, by hand."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms

SIZES = ((75, 56), (56, 75), (500, 375), (375, 500), (501, 333), (2400, 1600), (1000, 8), (8, 1000), (500, 1), (1, 300))
SIZES += ((200, 400), (224, 224), (256, 256), (257, 300), (1, 1))


def photo(width: int, height: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth shades, hard edges and noise, as photographs have. uint8, ``(height, width, channels)``."""
    rng = np.random.default_rng([seed, width, height])
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 37 + channel) * np.cos(y / 23 + 2 * channel) for channel in range(channels)]
    pixels = 127 + 80 * np.stack(waves, axis=-1) + rng.normal(0, 10, (height, width, channels))
    pixels[(x // 40 + y // 30) % 5 == 0] *= 0.5
    return pixels.clip(0, 255).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8], mode: str | None = None, **options: object) -> bytes:
    """A JPEG of the pixels, with Pillow's options."""
    image = PillowImage.fromarray(pixels)
    if mode is not None:
        image = PillowImage.frombytes(mode, image.size, pixels.tobytes())
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 90, **options})
    return stream.getvalue()


def segment(data: bytes, marker: int) -> slice:
    """Where the first segment with this marker is."""
    start = data.index(bytes([0xFF, marker]))
    return slice(start, start + 2 + int.from_bytes(data[start + 2 : start + 4], "big"))


def jpeg_440(width: int, height: int) -> bytes:
    """A JPEG with 4:4:0 sampling, which Pillow cannot write. Sides must be multiples of 16.

    The blocks of a 4:2:2 unit (16 x 8) and of a 4:4:0 unit (8 x 16) are stored alike: two of luma, then two
    of chroma. So the picture's 8 x 16 tiles are laid out as 16 x 8 ones, in storage order, saved as 4:2:2,
    and the frame header is changed to 4:4:0 and to the true size.
    """
    source = np.asarray(PillowImage.fromarray(photo(width, height)).convert("YCbCr"))
    tiles = source.reshape(height // 16, 16, width // 8, 8, 3).swapaxes(1, 2).reshape(-1, 16, 8, 3)
    luma = np.concatenate([tiles[:, :8, :, :1], tiles[:, 8:, :, :1]], axis=2)
    chroma = tiles[:, ::2, :, 1:].repeat(2, axis=2)
    units = np.concatenate([luma, chroma], axis=3)
    laid = units.reshape(height // 16, width // 8, 8, 16, 3).swapaxes(1, 2)
    laid = np.ascontiguousarray(laid.reshape(height // 2, width * 2, 3))
    data = bytearray(jpeg(laid, mode="YCbCr", subsampling="4:2:2"))
    frame = segment(data, 0xC0).start
    assert data[frame + 11] == 0x21
    data[frame + 11] = 0x12
    data[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def cmyk(adobe: int | None) -> bytes:
    """A CMYK JPEG. Pillow writes it inverted, as Adobe does, with transform 0; 2 makes it YCCK, None plain."""
    data = bytearray(jpeg(photo(500, 375, 4), mode="CMYK"))
    where = segment(data, 0xEE)
    if adobe is None:
        del data[where]
    else:
        data[where.stop - 1] = adobe
    return bytes(data)


def png(image: PillowImage.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def adobe_rgb_profile() -> bytes:
    """The sRGB profile with the primaries of Adobe RGB (1998): greens look paler where profiles are ignored."""
    profile = bytearray(srgb_profile())
    primaries = {
        b"rXYZ": (0.60974, 0.31111, 0.01947),
        b"gXYZ": (0.20528, 0.62567, 0.06087),
        b"bXYZ": (0.14919, 0.06322, 0.74457),
    }
    for tag, xyz in primaries.items():
        entry = profile.index(tag, 128)  # the tag table follows the header of 128 bytes
        offset = int.from_bytes(profile[entry + 4 : entry + 8], "big") + 8
        profile[offset : offset + 12] = b"".join(round(v * 65536).to_bytes(4, "big") for v in xyz)
    return bytes(profile)


def exif(orientation: int) -> PillowImage.Exif:
    tags = PillowImage.Exif()
    tags[0x0112] = orientation
    return tags


def write_all(folder: Path) -> dict[str, Path]:
    """Writes every oddity; returns the files by name, without suffix."""
    picture = photo(500, 375)
    gray = picture[..., 0]
    files = {f"size {w}x{h}": jpeg(photo(w, h)) for w, h in SIZES}
    files |= {
        f"sampling {s.replace(':', '')}": jpeg(photo(499, 373), subsampling=s)
        for s in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")
    }
    files["sampling 440"] = jpeg_440(496, 368)
    files |= {f"exif {o}": jpeg(picture, exif=exif(o)) for o in (0, 3, 6, 8)}
    files |= {
        "gray": jpeg(gray),
        "gray with profile": jpeg(gray, icc_profile=srgb_profile()),
        "adobe rgb profile": jpeg(picture, icc_profile=adobe_rgb_profile()),
        "progressive": jpeg(picture, progressive=True),
        "progressive gray": jpeg(gray, progressive=True),
        "restart markers": jpeg(picture, restart_marker_rows=1),
        "rgb inside": jpeg(picture, keep_rgb=True),
        "quality 100": jpeg(picture, quality=100),
        "quality 5": jpeg(picture, quality=5),
        "thumbnail and trailing bytes": jpeg(picture, comment=jpeg(photo(75, 56))[:60000]) + b"trailing" * 9,
        "o'hara's": jpeg(picture),
        "größe 画像": jpeg(picture),
        "cmyk adobe": cmyk(0),
        "cmyk ycck": cmyk(2),
        "cmyk plain": cmyk(None),
        "png rgb": png(PillowImage.fromarray(picture)),
        "png alpha": png(PillowImage.fromarray(photo(300, 280, 4))),
        "png palette": png(PillowImage.fromarray(picture).quantize(64), transparency=3),
        "png 16 bit": png(PillowImage.fromarray(gray.astype(np.uint16) * 257)),
    }
    paths = {name: folder / f"{name}.JPEG" for name in files}
    for name, path in paths.items():
        path.write_bytes(files[name])
    return paths


def bad_files() -> dict[str, bytes]:
    """Files that cannot be decoded, by what is wrong."""
    whole = jpeg(photo(500, 375))
    tables = segment(whole, 0xDB)
    half = len(whole) // 2
    return {
        "truncated": whole[:half],
        "truncated after a whole thumbnail": jpeg(photo(500, 375), comment=jpeg(photo(20, 20)))[:half],
        "without its last marker": whole[:-2],
        "without tables": whole[: tables.start] + whole[tables.stop :],
        "a foreign marker in the middle": whole[:half] + b"\xff\x33" + whole[half:],
        "header only": whole[:300],
        "empty": b"",
        "text": b"this is not a picture\n",
        "truncated png": png(PillowImage.fromarray(photo(300, 280)))[:9000],
        "two bytes": b"\xff\xd8",
        "start and end": b"\xff\xd8\xff\xd9",
    }
