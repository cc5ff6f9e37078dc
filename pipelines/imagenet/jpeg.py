"""Tells a whole, ordinary JPEG from everything else by its markers alone, in microseconds."""

from __future__ import annotations

import numpy as np

# Marker codes of ITU-T T.81, table B.1: the second byte after 0xFF.
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_NOT_A_FRAME = (0xC4, 0xC8, 0xCC)  # DHT, JPG, DAC share the range of the frame markers
_SOS, _EOI = 0xDA, 0xD9
_RST_FIRST, _RST_LAST = 0xD0, 0xD7


def plain_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG about which every decoder agrees.

    None for anything else: other formats, CMYK, 12-bit, lossless or arithmetic-coded JPEGs, a file whose
    scan does not run to its end marker. That does not mean that a file is bad, only that the markers
    do not settle it.

    Args:
        data: the file's bytes.
    """
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    frame: tuple[int, int, int, int] | None = None  # marker, height, width, components
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == _SOS:
            if frame is None or not _scan_ends(data, at, frame):
                return None
            return frame[1], frame[2]
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker < _BASELINE or _RST_FIRST <= marker <= _EOI or length < 2:
            return None
        if marker <= 0xCF and marker not in _NOT_A_FRAME:
            if frame is not None or marker > _PROGRESSIVE:
                return None
            bits, components = data[at + 4], data[at + 9]
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
            if bits != 8 or components not in (1, 3) or not height or not width:
                return None
            frame = marker, height, width, components
        at += 2 + length
    return None


def _scan_ends(data: bytes, at: int, frame: tuple[int, int, int, int]) -> bool:
    """Whether the compressed data after the scan header at ``at`` runs to an end-of-image marker.

    Inside compressed data 0xFF is always followed by 0x00 or a restart marker, so any other pair is a
    marker. Where one scan holds all components, the first marker must be the end of the image: with another
    one in between, Pillow refuses the file but other decoders return half an image without a word.
    """
    marker, _, _, components = frame
    scan = np.frombuffer(data, np.uint8, offset=at + 4)
    followers = scan[np.flatnonzero(scan[:-1] == 0xFF) + 1]
    is_marker = (followers != 0) & (followers != 0xFF) & ((followers < _RST_FIRST) | (followers > _RST_LAST))
    markers = followers[is_marker]
    if marker != _PROGRESSIVE and data[at + 4] == components:
        return markers.size > 0 and bool(markers[0] == _EOI)
    return bool((markers == _EOI).any())
