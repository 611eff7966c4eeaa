#!/usr/bin/env bash
# Builds images with buildah, without an image registry. As root.
#
#   scripts/images/build.sh [api|worker|scheduler …]          localhost/callboard-…:latest; all three by default
#   scripts/images/build.sh --context FOLDER --tag NAME       another Dockerfile, such as one FROM callboard-worker
#   BASE_IMAGE=NAME scripts/images/build.sh …                 on another base than the one from Debian's packages
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export CONTAINERS_CONF=$PWD/scripts/images/containers.conf

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What this machine's pip knows of mirrors and certificates holds for the build too, and stays out of the images.
known=$(python3 -m pip config list 2>/dev/null || true)
{
    echo '[global]'
    for key in index-url extra-index-url trusted-host proxy timeout; do
        sed -n "s/^\(global\|install\|:env:\)\.$key='\(.*\)'$/$key = \2/p" <<<"$known" | tail -n 1
    done
} >"$work/pip.conf"
options=(--isolation chroot --network host --layers --pull=never --format oci)
certificates=/etc/ssl/certs/ca-certificates.crt
if [[ -e $certificates ]]; then
    options+=(--volume "$certificates:$certificates:ro")
    echo "cert = $certificates" >>"$work/pip.conf"
fi

build() { # build NAME OPTION…
    local name=$1 started=$SECONDS
    shift
    buildah bud "${options[@]}" --tag "$name" "$@" >"$work/log" 2>&1 || {
        tail -n 30 "$work/log" >&2
        echo "images: $name could not be built" >&2
        exit 1
    }
    echo "images: $name built in $((SECONDS - started)) s"
}

if [[ ${1:-} == --context ]]; then
    [[ $# == 4 && $3 == --tag ]] || { echo "usage: $0 --context FOLDER --tag NAME" >&2; exit 2; }
    # A Dockerfile that is not ours asks for no secret of ours: pip finds its configuration in its usual place.
    build "$4" --volume "$work/pip.conf:/etc/pip.conf:ro" "$(cd "$here" && realpath "$2")"
    exit
fi

targets=("$@")
((${#targets[@]})) || targets=(worker api scheduler)
base=${BASE_IMAGE:-$(scripts/images/base.sh)}
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' callboard/__init__.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
created=$(git log -1 --format=%cI 2>/dev/null || date -u +%FT%TZ)
for target in "${targets[@]}"; do
    case $target in api | worker | scheduler) ;; *) echo "images: no target $target" >&2; exit 2 ;; esac
    build "localhost/callboard-$target:latest" --target "$target" --secret "id=pip,src=$work/pip.conf" \
        --build-arg "BASE_IMAGE=$base" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
        --build-arg "CREATED=$created" .
done
