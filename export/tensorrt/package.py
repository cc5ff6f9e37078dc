"""The package ``tensorrt``: found, old enough to be refused, and given a logger."""

from __future__ import annotations

import sys
from typing import Any

from scarlet.errors import error_text

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
