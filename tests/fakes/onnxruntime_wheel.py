"""The real onnxruntime-gpu on a machine without a GPU: fetched, unpacked, and run over stub libraries of CUDA.

The provider's library wants functions of CUDA's libraries. Stubs are compiled that define every one of them: memory is
the host's, copies are copies, one device is there, and all else says that it succeeded and does nothing. That is
enough for the provider to read its options, to be given nodes, to make a session and to call it; no kernel is ever run.
They know which stream is captured, by which thread and how strictly, refuse as CUDA does what may not be done then, and
count what ``STUB_COUNTS`` names.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import filelock
import pytest

PACKAGE, VERSION = "onnxruntime-gpu", "1.31.1"
SWITCH = "SCARLET_BENCH_CONTRACTS"
FETCH_SECONDS = 900
PROVIDER_LIBRARY = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
PROGRAM = Path(__file__).with_name("onnxruntime_on_stubs.py")
ROOT = Path(__file__).resolve().parents[2]

# Functions that must do something for a session to be made. cudaDevAttrComputeCapabilityMajor and its like are numbers
# of CUDA's enum cudaDeviceAttr: 75 and 76 are the compute capability, 16 the number of multiprocessors.
STUB_COUNTS = (
    "on the legacy stream",
    "captures",
    "captures spoilt",
    "graphs launched",
    "waits for all",
    "waits for a stream",
)
SPECIAL = """
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
struct dim3 { unsigned x, y, z; };
static __thread struct { struct dim3 grid, block; size_t shared; void *stream; } pushed;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static void *capturing;
static pthread_t capturer;
static int mode, spoilt;
int stub_counts[6];
static int on(void *stream) { return __sync_fetch_and_add(&stub_counts[0], !stream || stream == (void *)1), 0; }
static int unsafe(void) { // 900: may not be done while a stream captures in the global mode (0), or in this thread
  pthread_mutex_lock(&guard);
  int bad = capturing && (mode == 0 || pthread_equal(capturer, pthread_self()));
  if (bad) spoilt = 1;
  pthread_mutex_unlock(&guard);
  return bad ? 900 : 0;
}
int cudaStreamBeginCapture(void *stream, int how) {
  pthread_mutex_lock(&guard);
  capturing = stream, capturer = pthread_self(), mode = how, spoilt = 0, stub_counts[1]++;
  pthread_mutex_unlock(&guard);
  return usleep(50000), on(stream);
}
int cudaStreamEndCapture(void *stream, void **graph) {
  pthread_mutex_lock(&guard);
  int bad = spoilt;
  capturing = 0, stub_counts[2] += bad, *graph = (void *)5;
  pthread_mutex_unlock(&guard);
  return bad ? 901 : on(stream);
}
int cudaStreamIsCapturing(void *stream, int *status) { *status = capturing && stream == capturing; return 0; }
int cudaGraphInstantiate(void **exec, void *graph, unsigned long flags) { *exec = (void *)6; return 0; }
int cudaGraphLaunch(void *exec, void *stream) { __sync_fetch_and_add(&stub_counts[3], 1); return on(stream); }
int cudaDeviceSynchronize(void) { __sync_fetch_and_add(&stub_counts[4], 1); return unsafe(); }
int cudaStreamSynchronize(void *stream) { __sync_fetch_and_add(&stub_counts[5], 1); return on(stream); }
int __cudaPushCallConfiguration(struct dim3 grid, struct dim3 block, size_t shared, void *stream) {
  pushed.grid = grid, pushed.block = block, pushed.shared = shared, pushed.stream = stream;
  return 0;
}
int __cudaPopCallConfiguration(struct dim3 *grid, struct dim3 *block, size_t *shared, void **stream) {
  *grid = pushed.grid, *block = pushed.block, *shared = pushed.shared, *stream = pushed.stream;
  return 0;
}
int __cudaLaunchKernel(void *f, struct dim3 g, struct dim3 b, void **a, size_t n, void *stream) { return on(stream); }
int cudaLaunchKernel(void *f, struct dim3 g, struct dim3 b, void **args, size_t n, void *stream) { return on(stream); }
int cudaGetDeviceCount(int *n) { *n = 1; return 0; }
int cudaGetDevice(int *n) { *n = 0; return 0; }
int cudaMalloc(void **p, size_t n) { return unsafe() ? 900 : posix_memalign(p, 256, n); }
int cudaMallocHost(void **p, size_t n) { return posix_memalign(p, 256, n); }
int cudaHostAlloc(void **p, size_t n, unsigned flags) { return unsafe() ? 900 : posix_memalign(p, 256, n); }
int cudaFree(void *p) { int bad = unsafe(); if (!bad) free(p); return bad; }
int cudaFreeHost(void *p) { free(p); return 0; }
int cudaMemcpy(void *to, const void *from, size_t n, int kind) { memmove(to, from, n); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream)
{ memmove(to, from, n); return on(stream); }
int cudaMemset(void *to, int value, size_t n) { memset(to, value, n); return 0; }
int cudaMemsetAsync(void *to, int value, size_t n, void *stream) { memset(to, value, n); return on(stream); }
int cudaMemGetInfo(size_t *left, size_t *all) { *left = *all = (size_t)64 << 30; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaDeviceGetAttribute(int *value, int which, int device)
{ *value = which == 75 ? 9 : which == 76 ? 0 : which == 16 ? 132 : 1024; return 0; }
const char *cudaGetErrorString(int error) { return "stub"; }
const char *cudaGetErrorName(int error) { return "stub"; }
"""


def ask(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What ``onnxruntime_on_stubs.py`` answers. Skips the test, with a reason, where it is not wanted or possible."""
    if os.environ.get(SWITCH) != "1":
        pytest.skip(f"{PACKAGE} has 250 MB to fetch: set {SWITCH}=1 to check it")
    folder = _cache() / VERSION
    with filelock.FileLock(f"{folder}.lock"):
        digest = hashlib.sha256(SPECIAL.encode()).hexdigest()[:8]
        site, stubs = _unpacked(folder), folder / f"stubs-{digest}"
        if not (stubs / "done").exists():
            _make_stubs(site / PROVIDER_LIBRARY, stubs)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(stubs),
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(PROGRAM), json.dumps(questions)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def _cache() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(cache) if cache else Path.home() / ".cache") / "scarlet-bench-tests" / PACKAGE
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _unpacked(folder: Path) -> Path:
    """A folder for PYTHONPATH that holds the package; nothing is installed."""
    site = folder / "site"
    if (site / PROVIDER_LIBRARY).exists():
        return site
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{PACKAGE} {VERSION} could not be fetched in {FETCH_SECONDS} s")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        pytest.skip(f"{PACKAGE} {VERSION} could not be fetched: {reason}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    wheel.unlink()
    return site


def _make_stubs(library: Path, folder: Path) -> None:
    """Libraries that define what the provider's library wants of CUDA, by name and version."""
    for tool in ("cc", "nm", "readelf"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} to make stub libraries with; install gcc and binutils")
    folder.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, list[str]] = {name: [] for name in _needed(library) if _is_cudas(name)}
    listed = subprocess.run(["nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        name, _, version = line.split()[-1].partition("@")
        if version in wanted:
            wanted[version].append(name)
        elif not version and name.startswith("cu"):
            wanted["libcuda.so.1"].append(name)  # the driver's functions have no versions
    for name, functions in wanted.items():
        _compile(folder, name, functions)
    (folder / "done").touch()


def _needed(library: Path) -> list[str]:
    listed = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=True)
    return [line.split("[")[1].split("]")[0] for line in listed.stdout.splitlines() if "(NEEDED)" in line]


def _is_cudas(name: str) -> bool:
    return name.startswith(("libcu", "libnv"))


def _compile(folder: Path, name: str, functions: list[str]) -> None:
    special = SPECIAL if name.startswith("libcudart") else ""
    plain = [function for function in functions if f" {function}(" not in special and f"*{function}(" not in special]
    source, versions = folder / f"{name}.c", folder / f"{name}.map"
    source.write_text(special + "".join(f"long {function}(void) {{ return 0; }}\n" for function in plain))
    versions.write_text(f"{name} {{ global: *; }};\n")
    flags = ["-w", "-shared", "-fPIC", "-fno-builtin", f"-Wl,-soname,{name}", f"-Wl,--version-script,{versions}"]
    done = subprocess.run(["cc", *flags, "-o", str(folder / name), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
