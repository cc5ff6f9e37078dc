"""The registry of columns: what each column of a run's table means, where it is from and how it is written.

Every form reads it: the table itself (names and types), notebooks, the JSON Schema, tables for people, LaTeX and the
HTML page. Numbers stay in the units of their names; ``unit`` and ``scale`` are those in which people read them.
"""

from __future__ import annotations

from dataclasses import dataclass

CASES, SAMPLES, PREDICTIONS, ROUNDS = ("cases.jsonl", "samples.parquet", "predictions.parquet", "rounds.parquet")
TEXT, WHOLE, NUMBER = "string", "Int64", "Float64"


@dataclass(frozen=True)
class Column:
    """A column of a run's table.

    Attributes:
        name: in the frame, and in every file for programs; the unit stands in it.
        dtype: of pandas: ``string`` (unknown is empty), ``Int64`` or ``Float64`` (unknown is <NA>).
        source: the raw file of the run's folder that it is derived from; see ``source_of``.
        header: above it in a table for people, without the unit; empty where none shows it.
        title: the same where there is room, as in papers; empty for ``header``.
        unit: in which people read it; empty for none, or where ``header`` holds it.
        scale: what a value is divided by to be in ``unit``.
        written: how ``bench.report.text.written`` writes it: text, options, plain (an integer as it is), count
            (thousands separated), number (digits as its interval leaves), percent (no digit finer than one image) or
            share (whole per cent).
        interval: the column whose ``_low`` and ``_high`` are ends of its interval, which says how many digits are true.
        sort: the column that it is sorted by; empty for itself.
        tells: it is a setting, which tells rows apart, and no figure.
    """

    name: str
    dtype: str
    meaning: str
    source: str = CASES
    header: str = ""
    title: str = ""
    unit: str = ""
    scale: float = 1.0
    written: str = "text"
    interval: str = ""
    sort: str = ""
    tells: bool = False

    @property
    def heading(self) -> str:
        """The header with its unit, as tables of text have it: ``p50 ms``."""
        return f"{self.header} {self.unit}".strip()

    @property
    def is_numeric(self) -> bool:
        """Whether it holds numbers, to be aligned to the right."""
        return self.dtype != TEXT


def _setting(name: str, meaning: str, header: str, dtype: str = TEXT, written: str = "text") -> Column:
    return Column(name, dtype, meaning, header=header, written=written, tells=True)


def _milliseconds(name: str, meaning: str, header: str = "", title: str = "") -> Column:
    """A time of the samples, with the digits that the interval of the row's median leaves."""
    return Column(name, NUMBER, meaning, SAMPLES, header, title, "ms", 1e6, written="number", interval="latency_ns_p50")


def _figure(name: str, meaning: str, header: str = "", interval: str = "", unit: str = "") -> Column:
    """A number out of the samples."""
    return Column(name, NUMBER, meaning, SAMPLES, header, unit=unit, written="number", interval=interval)


def _percent(name: str, meaning: str, header: str) -> Column:
    return Column(name, NUMBER, meaning, PREDICTIONS, header, unit="%", written="percent")


def _count(name: str, meaning: str, source: str = CASES, header: str = "", title: str = "") -> Column:
    return Column(name, WHOLE, meaning, source, header, title, written="count")


def _mebibytes(name: str, meaning: str, header: str = "") -> Column:
    return Column(name, WHOLE, meaning, header=header, unit="MiB", scale=2.0**20, written="count")


_END_OF_MEDIAN = "end of its 95 % interval: Student's over lives, or within one life the sign test's over rounds."
_END_OF_RATE = "end of its 95 % interval: Student's over lives, or within one over blocks of passes (throughput Cases)."

_COLUMNS = (
    Column(
        "case_id",
        TEXT,
        "Hash of everything that tells this Case from others: the same in every run and on every machine.",
    ),
    Column(
        "status",
        TEXT,
        "How the Case ended: ok, unsupported, unavailable, failed, crashed, oom, timeout, fallback, invalid or "
        "interrupted.",
        header="Status",
    ),
    Column("reason", TEXT, "Why, for every status but ok.", header="Reason"),
    _setting("model", "Canonical name: scarlet_c, timm/<name>, onnx:<file>.", "Model"),
    _setting("weights", "Whose weights: official, user, demo or random.", "Weights"),
    _setting("backend", "The runtime: pytorch, onnxruntime, openvino, tensorrt.", "Backend"),
    _setting("device", "cpu or cuda.", "Device"),
    _setting("precision", "The arithmetic asked for: fp32, tf32, fp16, bf16 or int8.", "Precision"),
    _setting("pipeline", "What decoded and preprocessed the images: reference, dali, turbo and so on.", "Pipeline"),
    _setting("batch", "Images in one call of the backend.", "Batch", WHOLE, "plain"),
    _setting("threads", "Threads inside an operation, of each instance.", "Threads", WHOLE, "plain"),
    _setting("instances", "Copies of the backend that work side by side.", "Instances", WHOLE, "plain"),
    _setting("scenario", "accuracy, latency, throughput, or one of LoadGen's, in small letters.", "Scenario"),
    _setting(
        "stage", "What the samples timed: compute, end_to_end and so on. Only rows of one stage are compared.", "Stage"
    ),
    _count("n_samples", "Timed samples, warm-up left out.", SAMPLES, "Samples", "Calls"),
    # Of single calls, of the stage "compute": on a GPU its work alone. A far quantile with fewer effective samples than
    # ``stats.intervals.min_samples_for_quantile`` is empty, and ``left_empty`` says so.
    _milliseconds(
        "latency_ns_p50",
        "Median time of one call: of round medians, and of lives their geometric mean (latency Cases).",
        "p50",
        "Latency",
    ),
    _milliseconds("latency_ns_p50_low", f"Lower {_END_OF_MEDIAN}"),
    _milliseconds("latency_ns_p50_high", f"Upper {_END_OF_MEDIAN}"),
    _milliseconds("latency_ns_p90", "90th percentile; empty with fewer samples than it needs.", "p90"),
    _milliseconds("latency_ns_p99", "99th percentile; empty with fewer samples than it needs.", "p99"),
    # The samples follow one another, so that the sum of their times is the time spent.
    _figure(
        "throughput_images_per_s",
        "Images over the sum of the samples' times; of several lives the geometric mean (throughput Cases).",
        "Images/s",
        "throughput_images_per_s",
    ),
    _count("n_images", "Images predicted (accuracy), or worked on in timed samples.", SAMPLES, "Images"),
    _count("n_bad_images", "Files that could not be decoded.", header="Unreadable"),
    # Empty too for demo weights on other images than the demo set's.
    _percent(
        "top1_percent",
        "Share of images whose first class is the label; empty where the weights or labels mean nothing.",
        "Top-1",
    ),
    _percent("top5_percent", "Share of images whose label is among the first five classes.", "Top-5"),
    # Over images that both have. The reference is the first ok accuracy Case of the reference backend on the CPU in
    # FP32, else the first ok one; its own cells are empty.
    _percent("agreement_percent", "Share of images with the same first class as in the reference Case.", "Same top-1"),
    _mebibytes("peak_rss_bytes", "Largest resident memory of the Case's process.", "Peak"),
    _setting("options", "Further settings of the Case as a JSON object; empty for none.", "Options", written="options"),
    _percent(
        "top5_ordered_agreement_percent",
        "Share of images with the reference's first five classes in the same order.",
        "Same top-5",
    ),
    Column("reference_case_id", TEXT, "The accuracy Case that agreement is relative to."),
    _count("n_warmup", "Samples of the warm-up, which do not count."),
    Column("stop_reason", TEXT, "Why sampling ended."),
    _count("n_outliers", "Samples with a modified z score over 3.5: counted, never removed.", SAMPLES, "Outliers"),
    Column("left_empty", TEXT, "Why figures are left empty, a JSON object by their columns; empty for none."),
    Column("note", TEXT, "What else must be known of the row, such as that its data are a demo."),
    # Of timed Cases; see ``bench.analysis.time.verdict.Comparison``. A Case of status ``fallback`` is compared with no
    # baseline and is never one.
    Column("baseline_case_id", TEXT, "The timed Case that ratio and verdict are relative to."),
    _figure(
        "ratio", "Time per image over the baseline's, paired by round, over lives: under 1 is faster.", "Ratio", "ratio"
    ),
    _figure(
        "ratio_low", "Lower end of the ratio's interval, adjusted for all comparisons of the run.", interval="ratio"
    ),
    _figure(
        "ratio_high", "Upper end of the ratio's interval, adjusted for all comparisons of the run.", interval="ratio"
    ),
    Column("verdict", TEXT, "faster, slower, same or unresolved.", SAMPLES, "vs baseline", "Verdict", sort="ratio"),
    _count("n_rounds", "Interleaved rounds that both Cases took part in.", SAMPLES),
    _count("n_disturbed_rounds", "Of these, rounds in which something else used or throttled the machine.", ROUNDS),
    _count("n_lives", "Lives of their processes, each started afresh, that these rounds were taken in."),
    _figure("spread_percent", "Standard deviation of the ratio between lives.", unit="%"),
    _figure("start_effect_percent", "What a process that was started before the other one was slower by.", unit="%"),
    _figure("throughput_images_per_s_low", f"Lower {_END_OF_RATE}", interval="throughput_images_per_s"),
    _figure("throughput_images_per_s_high", f"Upper {_END_OF_RATE}", interval="throughput_images_per_s"),
    # What each part of a pass reaches alone, the median over rounds. Preprocessing is empty where a GPU decodes: its
    # decoding holds it.
    _figure("decode_images_per_s", "What decoding reaches alone on the same threads.", "Decode/s"),
    _figure("preprocess_images_per_s", "What preprocessing reaches alone on the same threads.", "Preprocess/s"),
    _figure("compute_images_per_s", "What inference reaches alone on the same threads.", "Compute/s"),
    # Where the parts share the cores, their times one after the other; where they have hardware of their own (a GPU
    # that decodes or computes, threads that do not add up to more than the cores), the slower side.
    _figure(
        "sum_of_parts_images_per_s",
        "What a pass could reach at most, given its parts and the hardware that they share.",
    ),
    Column(
        "sum_of_parts_percent", NUMBER, "The pass relative to that limit.", SAMPLES, "of sum of parts", written="share"
    ),
    Column("bound_by", TEXT, "The part that takes longest.", SAMPLES, "Bound by"),
    # From the median latency or, in throughput Cases, from the part "compute".
    _figure("gflop_per_s", "Two operations for each multiply-add of the network, in 10**9 a second."),
    # On as many threads, where ``scarlet-bench doctor --peak`` measured it.
    Column(
        "peak_percent",
        NUMBER,
        "That, relative to this machine's matrix multiplication in the same precision, where measured.",
        SAMPLES,
        written="share",
    ),
    _mebibytes("model_file_bytes", "Size of the file that the backend loaded."),
    Column(
        "energy_joules_per_image",
        NUMBER,
        "Of the processor's packages, idle power included, where RAPL can be read; on a GPU the GPU's own alone.",
        written="number",
    ),
    _milliseconds(
        "h2d_ns_p50", "Median time of copying the pixels to the GPU (latency Cases there).", "H2D", "Copy in"
    ),
    _milliseconds("d2h_ns_p50", "Median time of copying the logits back (latency Cases on a GPU).", "D2H", "Copy out"),
    _milliseconds("enqueue_ns_p50", "Median time that the host takes to queue the network (on a GPU).", "Enqueue"),
    _milliseconds(
        "end_to_end_ns_p50",
        "Median time of a whole call on a GPU, copies included; latency_ns_* are of its compute.",
        "End to end",
        "Whole call",
    ),
    # Of LoadGen's scenarios. In a server Case throughput_images_per_s is the highest valid rate, and times are at that.
    Column("loadgen", TEXT, "LoadGen's verdict, VALID; where it is INVALID the row is.", header="LoadGen"),
    Column("latency_limit_ns", NUMBER, "The limit of p99 (server Cases).", CASES, "p99 limit", "", "ms", 1e6, "number"),
    _milliseconds("queue_ns_p50", "Median time from a query to the call that answers it (server Cases).", "Queue"),
    _milliseconds("service_ns_p50", "Median time of that call (server Cases).", "Service"),
)

# By name, in the order in which they stand in the table.
REGISTRY: dict[str, Column] = {column.name: column for column in _COLUMNS}


def source_of(name: str, scenario: str) -> str:
    """The raw file of the run's folder that a figure of this column comes from.

    Args:
        scenario: of the row: ``n_images`` of an accuracy Case counts predictions.
    """
    if name == "n_images" and scenario == "accuracy":
        return PREDICTIONS
    return REGISTRY[name].source
