"""What is known of a machine from earlier measurements."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from folders import ROOT
from noise_result import NOW, noise_result

from bench.host.peaks import Peak
from bench.record import machine
from bench.record.files import DamagedRunWarning
from bench.record.machine import lookup_noise, save_noise
from scarlet.errors import BenchError

HOST = {"fingerprint": "cafe"}


def test_the_largest_of_the_hosts_last_three_results_counts(tmp_path: Path) -> None:
    for days_ago, interleaved in ((4, 0.09), (3, 0.01), (1, 0.02), (2, 0.03)):
        save_noise(noise_result(days_ago, interleaved), tmp_path)
    found = lookup_noise(HOST, tmp_path, NOW)
    assert (found["resolution"], found["measured_at"]) == (0.03, noise_result(2).measured_at)
    assert "3.00%" in found["note"]
    other = lookup_noise({"fingerprint": "beef"}, tmp_path, NOW)
    assert (other.keys(), "scarlet-bench noise" in other["note"]) == ({"note"}, True)


def test_a_result_holds_while_other_programs_keep_as_many_cores_busy(tmp_path: Path) -> None:
    for days_ago, others in ((1, 0.1), (2, 1.0)):
        save_noise(noise_result(days_ago, 0.01 * days_ago, others), tmp_path)

    def known(others: float | None) -> dict[str, Any]:
        return lookup_noise({**HOST, "activity": {"cpu_by_others_cores": others}}, tmp_path, NOW)

    assert [known(others).get("resolution") for others in (0.0, 1.2, None, 1.7)] == [0.01, 0.02, 0.02, None]
    assert "keep 1.7 cores busy" in known(1.7)["note"]


def test_what_one_pair_of_processes_said_is_not_used(tmp_path: Path) -> None:
    path = save_noise(noise_result(1), tmp_path)
    old = json.loads(path.read_text())
    old["resolution"] = {"interleaved": 0.05, "interleaved_short": 0.05, "repetitions": 6, "rounds": 240}
    path.write_text(json.dumps(old))
    assert "is stored" in lookup_noise(HOST, tmp_path, NOW)["note"]


def test_an_old_result_is_not_used_and_that_is_said(tmp_path: Path) -> None:
    save_noise(noise_result(29.9), tmp_path)
    assert "resolution" in lookup_noise(HOST, tmp_path, NOW)
    found = lookup_noise(HOST, tmp_path, NOW + timedelta(days=1))
    assert "resolution" not in found
    assert "30 days old and not used" in found["note"]


def test_it_lies_in_the_store_of_artefacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(tmp_path / "store"))
    fresh = replace(noise_result(), measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"))
    path = save_noise(fresh)
    assert path.parent == tmp_path / "store" / "noise" / "cafe"
    assert lookup_noise(HOST)["measured_at"] == fresh.measured_at
    assert "resolution" not in lookup_noise({"fingerprint": "beef"})


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"resolution": {}, "measured_at": "x"}'])
def test_damaged_results_are_left_out(tmp_path: Path, content: str) -> None:
    save_noise(noise_result(1), tmp_path)
    (tmp_path / "cafe" / "a.json").write_text(content)
    with pytest.warns(DamagedRunWarning, match=r"a\.json left out"):
        assert lookup_noise(HOST, tmp_path, NOW)["measured_at"] == noise_result(1).measured_at


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "cafe").write_text("")
    with pytest.raises(BenchError, match="cannot write"):
        save_noise(noise_result(), tmp_path)


def test_importing_it_is_cheap() -> None:
    code = "import sys, bench.record.machine; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"numpy", "pandas", "scipy", "torch"} & set(done.stdout.split())


def test_peaks_are_kept_by_host(tmp_path: Path) -> None:
    assert machine.lookup_peaks("host", tmp_path) == []
    peak = Peak(2, {"fp32": 100.0}, 12.0)
    path = machine.save_peaks([peak], "host", tmp_path)
    assert machine.lookup_peaks("host", tmp_path) == [asdict(peak)]
    path.write_text("[1]")
    with pytest.warns(UserWarning, match="left out"):
        assert machine.lookup_peaks("host", tmp_path) == []
