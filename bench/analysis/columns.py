"""What each column of a run's table means: for notebooks, for the JSON Schema and for tooltips."""

from __future__ import annotations

# Column of ``bench.analysis.table.COLUMNS`` to a sentence; units stand in the names.
DESCRIPTIONS: dict[str, str] = {
    "case_id": "Hash of everything that tells this Case from others: the same in every run and on every machine.",
    "status": "How the Case ended: ok, unsupported, unavailable, failed, crashed, oom, timeout, fallback, invalid or "
    "interrupted.",
    "reason": "Why, for every status but ok.",
    "model": "Canonical name: scarlet_c, timm/<name>, onnx:<file>.",
    "weights": "Whose weights: official, user, demo or random.",
    "backend": "The runtime: pytorch, onnxruntime, openvino, tensorrt.",
    "device": "cpu or cuda.",
    "precision": "The arithmetic asked for: fp32, tf32, fp16, bf16 or int8.",
    "pipeline": "What decoded and preprocessed the images: reference, dali, turbo and so on.",
    "batch": "Images in one call of the backend.",
    "threads": "Threads inside an operation, of each instance.",
    "instances": "Copies of the backend that work side by side.",
    "scenario": "accuracy, latency or throughput.",
    "stage": "What the samples timed: compute, end_to_end and so on. Only rows of one stage are compared.",
    "n_samples": "Timed samples, warm-up left out.",
    "latency_ns_p50": "Median time of one call (latency Cases).",
    "latency_ns_p50_low": "Lower end of the median's 95 % order-statistic interval.",
    "latency_ns_p50_high": "Upper end of the median's 95 % order-statistic interval.",
    "latency_ns_p90": "90th percentile; empty with fewer samples than it needs.",
    "latency_ns_p99": "99th percentile; empty with fewer samples than it needs.",
    "throughput_images_per_s": "Images over the sum of the samples' times.",
    "n_images": "Images predicted (accuracy), or worked on in timed samples.",
    "n_bad_images": "Files that could not be decoded.",
    "top1_percent": "Share of images whose first class is the label; empty where the weights or labels mean nothing.",
    "top5_percent": "Share of images whose label is among the first five classes.",
    "agreement_percent": "Share of images with the same first class as in the reference Case.",
    "peak_rss_bytes": "Largest resident memory of the Case's process.",
    "options": "Further settings of the Case as a JSON object; empty for none.",
    "top5_ordered_agreement_percent": "Share of images with the reference's first five classes in the same order.",
    "reference_case_id": "The accuracy Case that agreement is relative to.",
    "n_warmup": "Samples of the warm-up, which do not count.",
    "stop_reason": "Why sampling ended.",
    "n_outliers": "Samples with a modified z score over 3.5: counted, never removed.",
    "note": "What else must be known of the row, such as that its data are a demo.",
    "baseline_case_id": "The timed Case that ratio and verdict are relative to.",
    "ratio": "Time per image over the baseline's, paired by round: under 1 is faster.",
    "ratio_low": "Lower end of the ratio's interval, adjusted for all comparisons of the run.",
    "ratio_high": "Upper end of the ratio's interval, adjusted for all comparisons of the run.",
    "verdict": "faster, slower, same or unresolved.",
    "n_rounds": "Interleaved rounds that both Cases took part in.",
    "n_disturbed_rounds": "Of these, rounds in which something else used or throttled the machine.",
    "throughput_images_per_s_low": "Lower end of the 95 % bootstrap interval over passes (throughput Cases).",
    "throughput_images_per_s_high": "Upper end of the 95 % bootstrap interval over passes (throughput Cases).",
    "decode_images_per_s": "What decoding reaches alone on the same threads.",
    "preprocess_images_per_s": "What preprocessing reaches alone on the same threads.",
    "compute_images_per_s": "What inference reaches alone on the same threads.",
    "sum_of_parts_images_per_s": "What a pass could reach at most, given its parts and the hardware that they share.",
    "sum_of_parts_percent": "The pass relative to that limit.",
    "bound_by": "The part that takes longest.",
    "gflop_per_s": "Two operations for each multiply-add of the network, in 10**9 a second.",
    "peak_percent": "That, relative to this machine's matrix multiplication in the same precision, where measured.",
    "model_file_bytes": "Size of the file that the backend loaded.",
    "energy_joules_per_image": "Everything on the processor's packages, idle power included, where RAPL can be read.",
    "h2d_ns_p50": "Median time of copying the pixels to the GPU (latency Cases there).",
    "d2h_ns_p50": "Median time of copying the logits back (latency Cases on a GPU).",
    "end_to_end_ns_p50": "Median time of a whole call on a GPU, copies included; latency_ns_* are of its compute.",
}

# Columns that are derived from the samples of a timed Case, and those from the predictions of an accuracy Case.
FROM_SAMPLES = (
    "n_samples",
    "latency_ns_p50",
    "latency_ns_p50_low",
    "latency_ns_p50_high",
    "latency_ns_p90",
    "latency_ns_p99",
    "throughput_images_per_s",
    "throughput_images_per_s_low",
    "throughput_images_per_s_high",
    "ratio",
    "ratio_low",
    "ratio_high",
    "verdict",
    "n_rounds",
    "n_outliers",
    "decode_images_per_s",
    "preprocess_images_per_s",
    "compute_images_per_s",
    "sum_of_parts_images_per_s",
    "sum_of_parts_percent",
    "gflop_per_s",
    "peak_percent",
    "h2d_ns_p50",
    "d2h_ns_p50",
    "end_to_end_ns_p50",
)
FROM_ROUNDS = ("n_disturbed_rounds",)
FROM_PREDICTIONS = (
    "top1_percent",
    "top5_percent",
    "agreement_percent",
    "top5_ordered_agreement_percent",
)


def source_of(column: str, scenario: str) -> str:
    """The raw file of the run's folder that a figure of this column comes from.

    Args:
        column: of ``bench.analysis.table.COLUMNS``.
        scenario: of the row: ``n_images`` of an accuracy Case counts predictions.

    Returns:
        ``samples.parquet``, ``predictions.parquet``, ``rounds.parquet`` or ``cases.jsonl``.
    """
    if column in FROM_PREDICTIONS or (column == "n_images" and scenario == "accuracy"):
        return "predictions.parquet"
    if column in FROM_ROUNDS:
        return "rounds.parquet"
    if column in FROM_SAMPLES or column == "n_images":
        return "samples.parquet"
    return "cases.jsonl"
