#!/bin/sh
# Writes requirements/*.txt from pyproject.toml: universal, with hashes, without index addresses.
#
#   scripts/lock.sh            keeps the locked versions that still satisfy pyproject.toml
#   scripts/lock.sh --upgrade  takes the newest that do
#   scripts/lock.sh --check    writes nothing; fails if a lock is not what would be written
set -eu
cd "$(dirname "$0")/.."

target=requirements upgrade=
case "${1:-}" in
    "") ;;
    --upgrade) upgrade=--upgrade ;;
    --check)
        target=$(mktemp -d)
        trap 'rm -rf "$target"' EXIT
        # uv prefers the versions of the file that it overwrites.
        cp requirements/*.txt "$target"
        ;;
    *) echo "usage: scripts/lock.sh [--upgrade | --check]" >&2; exit 2 ;;
esac

lock() {
    out=$1
    shift
    .venv/bin/uv pip compile --quiet --python-version 3.11 --universal --generate-hashes \
        --no-emit-index-url --no-header --no-annotate $upgrade "$@" -o "$target/$out"
}

# The images hold what their service imports; a worker also runs the shipped applications. The command comes with
# worker and scheduler, for those who look into a cluster from inside; the API holds what it serves with, alone.
lock uv.txt requirements/uv.in
lock api.txt pyproject.toml --extra api --extra cluster
lock worker.txt pyproject.toml --extra worker --extra apps --extra cli --extra cluster
lock scheduler.txt pyproject.toml --extra scheduler --extra cli --extra cluster
# What makes the wheel that goes into them.
sed -n 's/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml | lock build.txt -
lock dev.txt pyproject.toml --all-extras --group dev

if [ "$target" != requirements ]; then
    diff -r -x '*.in' requirements "$target" || {
        echo "A lock is not what pyproject.toml asks for: run 'make lock'." >&2
        exit 1
    }
fi
