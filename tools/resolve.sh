#!/bin/sh
# Has uv resolve what each extra asks for, with its pins, for each Python, as wheels that are there for Linux.
# CI runs it every week: an index moves on under pins that nobody touches.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-uv} failed=0
resolve() { # pins, extra, Pythons
    pins=$1 extra=$2
    shift 2
    for version; do
        if "$uv" pip compile --quiet --no-header --no-build --python-platform x86_64-manylinux_2_28 \
            --python-version "$version" --extra "$extra" --constraints "constraints/$pins.txt" \
            -o /dev/null pyproject.toml; then
            echo "ok: $extra on Python $version"
        else
            echo "failed: $extra on Python $version" >&2 && failed=1
        fi
    done
}
for extra in cpu mnn loadgen dev; do resolve cpu "$extra" 3.10 3.11 3.12 3.13 3.14; done
for extra in gpu gpu12; do resolve "$extra" "$extra" 3.11 3.12 3.13 3.14; done
exit $failed
