#!/bin/sh
# Makes .venv, or brings it to what requirements/dev.txt and pyproject.toml say. `make setup` calls it.
#
# uv comes hash-pinned from requirements/uv.txt. Every package is checked against its hash.
# $PYTHON (default python3) makes the environment; it must be 3.11 or newer and have venv.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
stamp=.venv/.stamp

fresh() {
    [ -e "$stamp" ] && [ -z "$(find pyproject.toml requirements/uv.txt requirements/dev.txt -newer "$stamp")" ] \
        && .venv/bin/python -c "" 2>/dev/null
}

# Two shells in one tree take turns (where flock exists), and the second finds the work done.
if command -v flock >/dev/null 2>&1; then
    exec 9<"scripts/setup.sh"
    flock 9
fi
if fresh; then
    exit 0
fi

command -v "$PYTHON" >/dev/null 2>&1 || {
    echo "setup: no '$PYTHON' on PATH; name another: make setup PYTHON=/path/to/python3.11" >&2
    exit 1
}
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: Callboard needs Python 3.11 or newer; '$PYTHON' is $("$PYTHON" -V 2>&1);" \
        "name another: make setup PYTHON=/path/to/python3.11" >&2
    exit 1
}
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || {
    echo "setup: '$PYTHON' comes without venv (on Debian and Ubuntu: apt install python3-venv)" >&2
    exit 1
}

if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    "$PYTHON" -m venv --clear .venv
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt

# uv brings its own certificates and knows nothing of pip's configuration. Behind a company's proxy or
# mirror the system's certificates, then pip itself, still work.
uv="env VIRTUAL_ENV=$PWD/.venv .venv/bin/uv"
# Bytecode is written here, once: every process of the tests and of the demo reads it.
sync() { $uv pip sync --quiet --require-hashes --compile-bytecode "$@" requirements/dev.txt; }
if log=$(sync 2>&1) || log=$(sync --system-certs 2>&1); then
    :
else
    echo "$log" | tail -n 3 >&2
    echo "setup: uv could not fetch the packages; trying pip, which is slower" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r requirements/dev.txt
fi
# hatchling is in the lock, so that nothing is fetched here.
$uv pip install --quiet --offline --no-deps --no-build-isolation --editable .
touch "$stamp"
echo "setup: .venv is ready ($(.venv/bin/python -V))"
