"""TensorRT plans of ONNX graphs, for TensorRT 10 and 11, in the artefact store.

Networks are strongly typed: the types are in the graph (FP32, or one that ``export.precision.lower`` made), and nothing
but TF32 is left to the builder. Each plan is built in a process of its own: a builder that crashes ends no worker. It
fits one version of TensorRT and one kind of GPU, so both are in its key.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.store import Artefact, Store, artefact_key
from scarlet.errors import BenchError, error_text
from scarlet.processes import ending, tied

if TYPE_CHECKING:
    import tensorrt as trt

DEFAULT_LEVEL = 3
# Goes up when a change in the builder makes other plans of the same graph.
REVISION = 1

PROGRAM = "from export.tensorrt import main; main()"
# 8.6 has no strongly typed networks; in 10 the two kinds are side by side, and in 11 there is no other.
OLDEST_MAJOR = 10


class TensorRtUnavailable(Exception):
    """TensorRT is not installed here, or does not work here. The text says what to do."""


def import_tensorrt() -> Any:
    """The package ``tensorrt``.

    Raises:
        TensorRtUnavailable: it is not installed, lacks its libraries, or is older than 10.
    """
    try:
        import tensorrt
    except ModuleNotFoundError as missing:
        if missing.name != "tensorrt":
            raise TensorRtUnavailable(
                f"TensorRT is not whole: {missing}; run: pip install --force-reinstall tensorrt"
            ) from missing
        raise TensorRtUnavailable(
            "the package tensorrt is not installed; its libraries come from NVIDIA's own package index, so run where "
            "that can be reached: pip install tensorrt"
        ) from missing
    except (ImportError, OSError) as broken:  # a library that it loads is missing or of another version
        reason = error_text(broken)
        raise TensorRtUnavailable(
            f"TensorRT's libraries do not load: {reason}; install package and libraries of one version: "
            "pip install --force-reinstall tensorrt"
        ) from broken
    version = str(tensorrt.__version__)
    if int(version.partition(".")[0]) < OLDEST_MAJOR:
        raise TensorRtUnavailable(
            f"TensorRT {version} is too old: the types of a graph hold from version {OLDEST_MAJOR} on; run: pip "
            "install --upgrade tensorrt"
        )
    return tensorrt


def make_log(trt: Any) -> Any:
    """A logger for TensorRT: warnings and errors go to stderr, and ``errors`` keeps the errors' texts."""
    severities = trt.ILogger.Severity
    grave = (severities.INTERNAL_ERROR, severities.ERROR)

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in grave:
                self.errors.append(" ".join(msg.split()))
            if severity in grave or severity == severities.WARNING:
                print(f"TensorRT: {msg}", file=sys.stderr, flush=True)

    return Log()


@dataclass(frozen=True)
class PlanSpec:
    """What to build.

    Attributes:
        onnx: the graph; its types are those that the plan computes in.
        opt_batch: the batch that kernels are chosen for.
        max_batch: the largest batch. The smallest is 1.
        tf32: whether what is FP32 in the graph may be multiplied in TF32.
        level: the builder's optimisation level, 0 to 5.
        build: 0 for the plan built with this machine's timing cache. From 1 on, the number of a plan whose kernels are
            all timed anew: what several of them differ in is the spread of building.
    """

    onnx: str
    onnx_sha256: str
    opt_batch: int
    max_batch: int
    tf32: bool = False
    level: int = DEFAULT_LEVEL
    build: int = 0


def write_plan(spec: PlanSpec, target: Path, timing: Path | None) -> dict[str, Any]:
    """Builds a plan in this process.

    Args:
        timing: file of the timing cache, read and written anew; None for none.

    Returns:
        ``tensorrt``, ``build_seconds``, ``network_layers``, ``profile`` (``dynamic`` or ``static``), ``timing_cache``
        (``none``, ``new`` or ``reused``).

    Raises:
        TensorRtUnavailable: TensorRT cannot be used here.
        BenchError: TensorRT does not take the graph, or finds no way to run it.
        MemoryError: there was not enough of the GPU's memory.
    """
    trt = import_tensorrt()
    log = make_log(trt)
    try:
        builder = trt.Builder(log)
    except (TypeError, RuntimeError) as error:  # the constructor's C++ side gave nothing
        raise TensorRtUnavailable(
            f"TensorRT {trt.__version__} cannot start here: {_last(log, str(error))}; `scarlet-bench doctor` tells "
            "whether driver and libraries fit together"
        ) from error
    network = builder.create_network(network_flags(trt))
    parse(trt, network, log, Path(spec.onnx))
    config = builder.create_builder_config()
    configure(trt, config, spec)
    dynamic = add_profile(builder, network, config, spec)
    reused = timing is not None and use_timing_cache(config, timing)
    started = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - started
    if plan is None:
        reason = _last(log, "it gave no reason")
        if "out of memory" in reason.lower():
            raise MemoryError(f"TensorRT ran out of memory while building: {reason}")
        raise BenchError(f"TensorRT {trt.__version__} built no plan: {reason}", "Its messages are in the Case's log.")
    target.write_bytes(plan)
    if timing is not None:
        save_timing_cache(config, timing)
    return {
        "tensorrt": str(trt.__version__),
        "build_seconds": seconds,
        "network_layers": int(network.num_layers),
        "profile": "dynamic" if dynamic else "static",
        "timing_cache": "none" if timing is None else "reused" if reused else "new",
    }


def network_flags(trt: Any) -> int:
    """Strong typing where it has to be requested. The bits have other places in other versions."""
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if typed is None else 1 << int(typed)


def parse(trt: Any, network: trt.INetworkDefinition, log: Any, onnx: Path) -> None:
    """Reads a graph into a network; BenchError where TensorRT has no layer for a node, or the file is none of ONNX."""
    parser = trt.OnnxParser(network, log)
    # The path is where weights that are not in the file are looked for.
    if parser.parse(onnx.read_bytes(), path=str(onnx)):
        return
    found = [described(parser.get_error(index)) for index in range(parser.num_errors)]
    reason = " ".join("; ".join(found[:3]).split()) or _last(log, "it gave no reason")
    raise BenchError(
        f"TensorRT {trt.__version__} cannot read the graph: {reason}",
        "Leave these nodes out of the model, or use --backends onnxruntime.",
    )


def described(error: trt.ParserError) -> str:
    """One error of the parser: which node, and what about it."""
    return f"node '{error.node_name()}' ({error.node_operator()}): {error.desc()}"


def configure(trt: Any, config: trt.IBuilderConfig, spec: PlanSpec) -> None:
    """Sets what is not in the graph. TF32 is on unless it is cleared."""
    if spec.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = spec.level
    # The proof needs each layer's types and tactic.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED


def add_profile(
    builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig, spec: PlanSpec
) -> bool:
    """Tells the builder which batches will come. A graph of fixed batch needs no telling.

    Returns:
        whether a profile was added.

    Raises:
        BenchError: a dimension besides the batch is open, or TensorRT does not take the profile.
    """
    profile = builder.create_optimization_profile()
    dynamic = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        batch, *rest = tensor.shape
        if -1 in rest:
            raise BenchError(
                f"the graph's input '{tensor.name}' leaves other sizes open than the batch",
                "Export it with height and width fixed.",
            )
        if batch == -1:
            dynamic = True
            profile.set_shape(tensor.name, (1, *rest), (spec.opt_batch, *rest), (spec.max_batch, *rest))
    if dynamic and config.add_optimization_profile(profile) < 0:
        raise BenchError(f"TensorRT refused batches of 1 to {spec.max_batch}", "Its messages are in the Case's log.")
    return dynamic


def use_timing_cache(config: trt.IBuilderConfig, timing: Path) -> bool:
    """Gives the builder what it measured in earlier builds; says whether there was something that it took."""
    known = timing.read_bytes() if timing.exists() else b""
    taken = config.set_timing_cache(config.create_timing_cache(known), False)
    if not taken:  # of another version or GPU, in spite of the file's name
        config.set_timing_cache(config.create_timing_cache(b""), False)
    return bool(known and taken)


def save_timing_cache(config: trt.IBuilderConfig, timing: Path) -> None:
    """Keeps the measurements for the next build. Of two builds at once the later one's stay: the others cost time."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    timing.parent.mkdir(parents=True, exist_ok=True)
    temporary = timing.with_name(f".{timing.name}.{os.getpid()}")
    temporary.write_bytes(cache.serialize())
    os.replace(temporary, timing)


def _last(log: Any, otherwise: str) -> str:
    return log.errors[-1] if log.errors else otherwise


# What a plan is built for: the GPU's name, compute capability and multiprocessors, of the part of it (MIG) that this
# process has, and the driver's version.
GPU_FACTS = ("name", "compute_capability", "multiprocessors", "driver")


def plan_for(spec: PlanSpec, gpu: Mapping[str, str], version: str, store: Store) -> Artefact:
    """The plan from the store; it is built first if it is not there, in a process of its own.

    ``gpu`` has ``GPU_FACTS``; the plan's facts are those of ``write_plan``. Building again does not give the same
    bytes, so its digest names what was measured.

    Building loads kernels, takes gigabytes of memory and now and then crashes: nothing of that should be seen in the
    process that is measured. What the building process prints goes to this one's stderr.

    Raises:
        BenchError: it cannot be built.
        TensorRtUnavailable: TensorRT cannot build anything here.
        MemoryError: there was not enough of the GPU's memory.
    """
    timing = store.root / "timing" / (artefact_key({"tensorrt": version, **gpu}) + ".cache")

    def make(target: Path) -> dict[str, Any]:
        return in_own_process(spec, target, None if spec.build else timing)

    return store.with_facts(key_parts(spec, gpu, version), ".plan", make)


def key_parts(spec: PlanSpec, gpu: Mapping[str, str], version: str) -> dict[str, str]:
    """Everything that a plan depends on, as ``Store`` takes it; where the graph lies is not among it."""
    described = {name: value for name, value in asdict(spec).items() if name != "onnx"}
    return {
        "kind": "tensorrt plan",
        "revision": str(REVISION),
        "tensorrt": version,
        **{name: str(value) for name, value in described.items()},
        **gpu,
    }


def in_own_process(spec: PlanSpec, target: Path, timing: Path | None) -> dict[str, Any]:
    """``write_plan`` in a new process, which ends with this one's process group.

    Raises:
        BenchError: what ``write_plan`` raises, or the process died.
        TensorRtUnavailable: as raised by ``write_plan``.
        MemoryError: as raised by ``write_plan``.
    """
    home = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", tied(PROGRAM)],
        input=pickle.dumps((spec, target, timing)),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        raise BenchError(
            f"the process that builds TensorRT's plan {ending(done.returncode)}", "Its messages are in the Case's log."
        )
    answer: dict[str, Any] | Exception = pickle.loads(done.stdout)
    if isinstance(answer, Exception):
        raise answer
    return answer


def main() -> None:
    """Reads one request from stdin, and answers on stdout; what libraries print goes to stderr."""
    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)
        answer.write(pickle.dumps(answered(*pickle.load(sys.stdin.buffer))))
    # Libraries of the GPU sometimes crash while the interpreter takes itself apart; the plan is written by now.
    os._exit(0)


def answered(spec: PlanSpec, target: Path, timing: Path | None) -> dict[str, Any] | Exception:
    """What ``write_plan`` returns, or raises of what it says that it does."""
    try:
        return write_plan(spec, target, timing)
    except (BenchError, TensorRtUnavailable, MemoryError) as error:
        return error
