"""A made-up A/A run of a host."""

from datetime import datetime, timedelta, timezone

from bench.record.machine import NoiseResult, Resolution

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def noise_result(days_ago: float = 0.0, interleaved: float = 0.012, others_cores: float | None = None) -> NoiseResult:
    return NoiseResult(
        resolution=Resolution(interleaved, 0.004, 6, 240),
        host_fingerprint="cafe",
        measured_at=(NOW - timedelta(days=days_ago)).isoformat(timespec="seconds"),
        load_1m=0.25,
        model="scarlet_c",
        backend="onnxruntime",
        device="cpu",
        precision="fp32",
        batch=1,
        threads=2,
        others_cores=others_cores,
    )
