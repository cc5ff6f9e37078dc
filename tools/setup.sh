#!/bin/sh
# Makes .venv with the packages for this machine: `tools/setup.sh [run|dev]`, called by the Makefile before every
# target. PYTHON names the interpreter; EXTRAS is cpu, gpu or gpu12, and without it a GPU is looked for.
#
# uv installs the packages. It reads neither pip.conf nor PIP_*: where those say how packages are to be had (an index, a
# proxy, wheels on disk), pip installs instead, and so it does where uv or what it needs is out of reach.
# A stamp in .venv says for which inputs the last set-up was completed; while it holds, nothing is run or written.
set -eu
cd "$(dirname "$0")/.."
kind=${1:-run} python=${PYTHON:-python3} log=.venv/setup.log child=
pip=".venv/bin/python -m pip" uv=".venv/bin/python -m uv pip"
# Present while packages are being written. Found at the start, it means that the last set-up was killed half way: pip
# or uv may then take a half-written package for a whole one, so the environment is made anew.
unfinished=.venv/.unfinished
# What pip and uv print when they begin to write.
writing='Installing collected packages|Uninstalling|Uninstalled|Prepared|Failed to install'

say() { echo "set-up: $*"; }

fail() { # what is wrong, what to do
    printf 'error: set-up: %s\n       %s\n' "$1" "$2" >&2
    exit 1
}

explain() { # Ends the set-up with the cause, as far as the last command's output tells it.
    tail -n 15 "$last" | cut -c 1-160 | sed 's/^/  | /' >&2
    # Where nothing was written yet (no network, say), an environment that worked stays as it was.
    printed "$writing" || rm -f "$unfinished"
    again="then run the same command again."
    ! printed 'No space left on device|Errno 28' ||
        fail "the disk is full" "Free some space (about 3 GB without a GPU, 10 GB with one), $again"
    ! printed 'Permission denied|Errno 13|Read-only file system' || fail "a file or folder may not be written" \
        "See above for which; a .venv that belongs to you can be removed with \`make clean\`."
    ! printed 'CERTIFICATE_VERIFY_FAILED|SSLError' || fail "the package index's certificate was not accepted" \
        "Behind a company proxy, name its certificate (PIP_CERT=/path/to/ca.pem), $again"
    ! printed 'NewConnectionError|[Nn]ame resolution|Name or service not known|NameResolutionError|ProxyError' \
        'ConnectTimeout|ReadTimeout|timed out|Network is unreachable|Connection (refused|reset)|Max retries exceeded' \
        'IncompleteRead|RemoteDisconnected' || fail "the package index cannot be reached" \
        "Check the network or the proxy settings (HTTPS_PROXY, pip.conf), $again"
    ! printed 'No matching distribution found|Could not find a version' ||
        fail "a pinned package has no build for this Python or this machine" \
            "See above for which; another Python may have one: make setup PYTHON=python3.12"
    fail "a command failed" "See above, or all of it in $log."
}

printed() { # Whether the last command printed one of these patterns.
    for pattern; do ! grep -Eq "$pattern" "$last" || return 0; done
    return 1
}

attempt() { # Runs a command with its output in the log. In the background, or a signal would have to wait for it.
    "$@" </dev/null >"$last" 2>&1 &
    child=$! status=0
    wait "$child" || status=$?
    [ ! -d .venv ] || { echo "\$ $*" && cat "$last" && echo "[exit $status]"; } >>"$log"
    return "$status"
}

run() { attempt "$@" || explain; }

by_uv() { # Installs with uv; fails where uv cannot be had or reaches no index.
    attempt $pip install uv==0.13.9 &&
        attempt $uv install --python .venv/bin/python "$@" ||
        { ! printed "$writing" || explain; return 1; }
}

has_gpu() { # A driver or tool alone proves nothing (images for GPUs carry both), so a device must be named.
    for device in /dev/nvidia[0-9]*; do [ ! -e "$device" ] || return 0; done
    # Windows' Linux has no device file, and its nvidia-smi in a folder of its own.
    PATH=$PATH:/usr/lib/wsl/lib nvidia-smi -L 2>/dev/null | grep -q "GPU 0"
}

is_done() { # Whether the last completed set-up was for the same inputs; one for `dev` holds all of one for `run`.
    [ -x .venv/bin/python ] && [ ! -e "$unfinished" ] &&
        cat .venv/.stamp-dev ".venv/.stamp-$kind" 2>/dev/null | grep -Fqx "$inputs"
}

holds() { # Whether .venv has a package of this name and version, a pattern.
    for entry in .venv/lib/python*/site-packages/$1.dist-info; do [ ! -e "$entry" ] || return 0; done
    return 1
}

# --- What is wanted, and whether it is there already

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || fail \
    "there is no '$python' here" "Install Python 3.10 or newer, or name one: make setup PYTHON=/path/to/python3"
case $version in 2.* | 3.[0-9]) fail "this Python is $version, and the project needs 3.10 or newer" \
    "Name a newer one that is installed here, for example: make setup PYTHON=python3.12" ;; esac
extra=$(printf %s "${EXTRAS:-}" | tr -d ' ' | tr '[:upper:]' '[:lower:]')
case $extra in
    "") if has_gpu; then extra=gpu; else extra=cpu; fi ;;
    cpu | gpu | gpu12) ;;
    *) fail "EXTRAS is '$EXTRAS'" \
        "Write EXTRAS=cpu, EXTRAS=gpu or (drivers before 580) EXTRAS=gpu12, or leave it out to detect a GPU." ;;
esac
case "$extra $version" in gpu*" 3.10") fail "the packages for a GPU need Python 3.11 or newer, and this is 3.10" \
    "Name a newer one, for example: make setup PYTHON=python3.12; or leave the GPU out: EXTRAS=cpu" ;; esac
constraints=constraints/$extra.txt
# The place is one of the inputs, as a .venv cannot move.
inputs=$({ cat pyproject.toml "$constraints" tools/setup.sh && echo "$extra $version ${TENSORRT:-} $PWD"; } | cksum)
! is_done || exit 0

# One set-up at a time. Child processes keep the lock, also those that outlive a killed set-up.
exec 9<pyproject.toml
if command -v flock >/dev/null && ! flock -n 9; then
    say "waiting for another set-up of this checkout"
    flock 9 || say "this file system has no locks: do not start two set-ups at once"
    ! is_done || exit 0
fi
missing=$("$python" -c 'import importlib.util as u; print(*[n for n in ("venv", "ensurepip") if not u.find_spec(n)])')
[ -z "$missing" ] || fail "this Python ($python) has no module $missing" \
    "Install it (Debian and Ubuntu: apt install python3-venv), or name another Python: make setup PYTHON=..."

# --- The environment

last=$(mktemp)
trap 'rm -f "$last"' EXIT
trap 'trap "" HUP INT TERM; kill "$child" 2>/dev/null; fail "interrupted" "Run the same command again."' HUP INT TERM
# Nothing asks questions, and nothing mixes other packages into .venv.
unset PYTHONPATH PYTHONHOME
export PIP_PROGRESS_BAR=off PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0
rm -f .venv/.stamp-* 2>"$last" || explain
# pip's own script names its place and Python: an environment that is broken, moved or of another Python is made anew.
case $(.venv/bin/pip --version 2>/dev/null) in
    *" from $(cd .venv 2>/dev/null && pwd -P)/"*"(python $version)") [ ! -e "$unfinished" ] ;;
    *) false ;;
esac || {
    say "virtual environment .venv, Python $version ..."
    run "$python" -m venv --clear --without-pip .venv
    touch "$unfinished"
    run .venv/bin/python -m ensurepip --upgrade --default-pip
}
touch "$unfinished"
run $pip install -c "$constraints" pip==26.3 setuptools

# --- The packages

# onnxruntime and onnxruntime-gpu install the same module: where the wrong one is there, both go.
if [ "$extra" = cpu ]; then rival=onnxruntime_gpu; else rival=onnxruntime; fi
! holds "$rival-*" || run $pip uninstall --yes onnxruntime onnxruntime-gpu
[ "$extra" = cpu ] || ! holds "torch-*+cpu" || run $pip uninstall --yes torch torchvision

extras=$extra
[ "$kind" != dev ] || extras=$extra,dev
say "packages ($extras), a few minutes ..."
# setuptools is there already, so that no second copy is fetched to build this one package.
set -- --no-build-isolation -c "$constraints" -e ".[$extras]"
# On Linux the package index's default build of torch brings gigabytes of CUDA libraries.
backend=
[ "$extra $(uname)" != "cpu Linux" ] || backend=--torch-backend=cpu
own=$($pip config list | grep -E 'index|find-links|proxy|cert|trusted-host|constraint' || :)
if [ -n "$own" ] || ! by_uv $backend "$@"; then
    # Which build of torch would pip take? A private index or a wheel on disk may well offer a CPU build. Without
    # fast-deps, an index that serves no metadata would send the whole wheel.
    report=.venv/torch.json
    [ -z "$backend" ] || run $pip install --dry-run --quiet --report="$report" --use-feature=fast-deps --no-deps \
        -c "$constraints" torch
    if [ -n "$backend" ] && grep -Eq '^ *"(nvidia-|cuda-|triton|pytorch-triton)' "$report"; then
        # Only torch and torchvision come from where PyTorch publishes its CPU builds; the rest is left to pip.
        [ -n "$own" ] && by_uv $backend --no-deps -c "$constraints" torch torchvision ||
            say "uv got no CPU build of PyTorch ($log says why): downloading the default with CUDA packages (gigabytes)"
    fi
    run $pip install "$@"
fi
# A stub on the package index, whose libraries come from NVIDIA's own.
case "$extra ${TENSORRT:-}" in
    cpu*) ;;
    *" 0") say "TENSORRT=0: TensorRT rows will be unavailable" ;;
    *) cuda=cu13; [ "$extra" = gpu ] || cuda=cu12
        say "TensorRT, from NVIDIA's own index (TENSORRT=0 leaves it out) ..."
        attempt $pip install "tensorrt-$cuda>=10,<12" ||
            say "TensorRT cannot be fetched ($log says why): its rows will be unavailable" ;;
esac
[ "$extra" = cpu ] || ! holds "torch-*+cpu" ||
    say "pip is set up to offer only a CPU build of torch here: PyTorch rows will not see the GPU"
rm "$unfinished"
echo "$inputs" >".venv/.stamp-$kind"
