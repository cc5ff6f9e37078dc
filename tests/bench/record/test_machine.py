"""What is known of a machine is found again under its fingerprint."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.host.peaks import Peak
from bench.record import machine


def test_peaks_are_kept_by_host(tmp_path: Path) -> None:
    assert machine.lookup_peaks("host", tmp_path) == []
    peak = Peak(2, {"fp32": 100.0}, 12.0)
    path = machine.save_peaks([peak], "host", tmp_path)
    assert machine.lookup_peaks("host", tmp_path) == [peak.to_dict()]
    path.write_text("[1]")
    with pytest.warns(UserWarning, match="left out"):
        assert machine.lookup_peaks("host", tmp_path) == []
