#!/usr/bin/env bash
# `make images`: tools, base, the three images, their bills of materials and the example's image, then what they
# weigh. Everything without an image registry; as root, on Debian or Ubuntu. tests/cluster/images runs them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[[ $(id -u) == 0 ]] || { echo "images: needs root, to lay out a base and to limit containers: sudo make images" >&2; exit 1; }
scripts/images/install-tools.sh
export CONTAINERS_CONF=$PWD/scripts/images/containers.conf
scripts/images/build.sh
scripts/images/build.sh --context examples/own-image --tag localhost/acme-worker:latest
.venv/bin/python scripts/images/sbom.py build/images localhost/callboard-{api,scheduler,worker}:latest
podman images --format 'table {{.Repository}} {{.Size}}' --filter reference='localhost/*-*'
