#!/usr/bin/env bash
# Builds the three images with buildah from the Dockerfile, as localhost/callboard-{api,worker,scheduler}:latest.
#
#   scripts/images/build.sh [api|worker|scheduler …]
#   BASE_IMAGE=NAME scripts/images/build.sh    on another base than the one made from Debian's packages
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

targets=("$@")
((${#targets[@]})) || targets=(worker api scheduler)
base=${BASE_IMAGE:-$(scripts/images/base.sh)}
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' callboard/__init__.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
created=$(git log -1 --format=%cI 2>/dev/null || date -u +%FT%TZ)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# What this machine's pip knows of mirrors and certificates holds for the build too, and stays out of the image.
PIP_CONFIG=$(python3 -m pip config list 2>/dev/null || true)
{
    echo '[global]'
    for key in index-url extra-index-url trusted-host proxy timeout; do
        sed -n "s/^\(global\|install\|:env:\)\.$key='\(.*\)'$/$key = \2/p" <<<"$PIP_CONFIG" | tail -n 1
    done
} >"$work/pip.conf"
options=(--isolation chroot --network host --layers --pull=never --format oci)
certificates=/etc/ssl/certs/ca-certificates.crt
if [[ -e $certificates ]]; then
    options+=(--volume "$certificates:$certificates:ro")
    echo "cert = $certificates" >>"$work/pip.conf"
fi

for target in "${targets[@]}"; do
    started=$SECONDS
    buildah bud "${options[@]}" --target "$target" --secret "id=pip,src=$work/pip.conf" \
        --build-arg "BASE_IMAGE=$base" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
        --build-arg "CREATED=$created" --tag "localhost/callboard-$target:latest" . >"$work/log" 2>&1 || {
        tail -n 30 "$work/log" >&2
        echo "images: callboard-$target could not be built" >&2
        exit 1
    }
    echo "images: callboard-$target built in $((SECONDS - started)) s"
done
