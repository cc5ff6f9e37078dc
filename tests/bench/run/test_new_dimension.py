"""A further dimension of the matrix is a field of Case, one of Matrix, and a column: tried on a copy of the tree."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from folders import ROOT

CHANGES = {
    "record/case.py": ("    instances: int = 1\n", "    instances: int = 1\n    streams: int = 1\n"),
    "run/spec.py": (
        "    pipeline: Annotated[\n",
        '    streams: Annotated[Counts, Axis("streams", only_timed=True)] = (1,)\n    pipeline: Annotated[\n',
    ),
    "analysis/columns.py": (
        '    _setting("scenario",',
        '    _setting("streams", "What is new.", "Streams", WHOLE),\n    _setting("scenario",',
    ),
}
USE = """
import json, sys
from pathlib import Path
from bench.analysis.table import load_frame
from bench.record.case import Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.run.spec import RunSpec, read_plan

plan = Path("plan.yaml")
plan.write_text("backends: fake\\nbatches: 1\\nstreams: [1, 4]\\nexclude: [{streams: 4, precision: fp16}]")
spec = RunSpec(**read_plan(plan), precisions="fp32,fp16")
assert RunSpec.from_dict(spec.to_dict()) == spec
cases = spec.cases("demo")
folder = RunFolder.create(Path("run"))
folder.write_run_info({"plan": spec.plan(cases, "demo"), "dataset": {}, "settings": spec.to_dict()})
for case in cases:
    folder.append_case(CaseResult(case, Status.FAILED, "not run"))
frame = load_frame(folder.path)
rows = frame[["scenario", "precision", "streams"]].values.tolist()
print(json.dumps({"rows": rows, "distinct": len({case.case_id for case in cases})}))
"""


def test_three_lines_make_a_dimension(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    for name, (before, after) in CHANGES.items():
        path = tmp_path / "bench" / name
        assert path.read_text().count(before) == 1, name
        path.write_text(path.read_text().replace(before, after))
    done = subprocess.run(
        [sys.executable, "-c", USE],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert sorted(told["rows"]) == [
        ["accuracy", "fp16", 1],
        ["accuracy", "fp32", 1],
        ["latency", "fp16", 1],
        ["latency", "fp32", 1],
        ["latency", "fp32", 4],
    ]
    assert told["distinct"] == 5
