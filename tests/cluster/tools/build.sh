#!/usr/bin/env bash
# Build the programs of tests/cluster from source: tools/build.sh FOLDER [PROGRAM…]
#
# Versions are pinned in the folders beside this file (go.mod, with the hashes of every module in go.sum); Go's own
# settings say where modules come from. Each finished program stays, so a build that was interrupted goes on where it
# was; one whose pins have changed is built anew. Go 1.26 or newer; all of them take about an hour on two cores and
# 12 GB of Go's caches. To move to a new version: change the `require` line (for kube: ./pin.py VERSION), then
# `go mod tidy -e` in that folder.
set -euo pipefail

[[ $# -ge 1 ]] || { echo "usage: tools/build.sh FOLDER [PROGRAM…]" >&2; exit 2; }
# Before the change of folder: it is the caller's.
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
cd "$(dirname "${BASH_SOURCE[0]}")"
[[ $# -ge 1 ]] || set -- kubeconform etcd kube helm4 helm3 prometheus prometheus-adapter
command -v go >/dev/null || { echo "build.sh: needs Go 1.26 or newer on PATH (https://go.dev/dl/)" >&2; exit 1; }

export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-mod=readonly

version_of() { # MODULE: as the go.mod of this folder requires it
    awk -v module="$1" '$1 == "require" && $2 == module { print $3 } $1 == module { print $2 }' go.mod | head -n 1
}

kubernetes_stamps() { # what `kubectl version` and discovery say: without them, v0.0.0
    local version minor package
    version=$(version_of k8s.io/kubernetes)
    minor=${version#v1.}
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        printf -- '-X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s -X %s.gitTreeState=archive ' \
            "$package" "$version" "$package" "$package" "${minor%%.*}" "$package"
    done
}

build() { # PROGRAM PACKAGE STAMPS [FLAG…]
    local program=$1 package=$2 stamps=$3
    shift 3
    go build -trimpath -buildvcs=false -p "${JOBS:-2}" -ldflags "-s -w $stamps" "$@" -o "$out/.$program.new" "$package"
    mv "$out/.$program.new" "$out/$program"
}

for program; do
    [[ -f $program/go.mod ]] || { echo "build.sh: unknown program $program" >&2; exit 2; }
    pins=$(cat "$program"/* build.sh | sha256sum | cut -c1-16)
    if [[ -x $out/$program && -e $out/.$program-$pins ]]; then
        echo "$program: there"
        continue
    fi
    echo "$program: building"
    started=$SECONDS
    cd "$program"
    case $program in
        kube)
            build kube . "$(kubernetes_stamps)"
            ln -sf kube "$out/kubectl"
            ;;
        etcd) build etcd go.etcd.io/etcd/server/v3 "" ;;
        helm3)
            build helm3 helm.sh/helm/v3/cmd/helm "-X helm.sh/helm/v3/internal/version.version=$(version_of helm.sh/helm/v3)"
            ;;
        helm4)
            build helm4 helm.sh/helm/v4/cmd/helm "-X helm.sh/helm/v4/internal/version.version=$(version_of helm.sh/helm/v4)"
            ;;
        prometheus)
            # Only the discovery that is used here: the others bring every cloud's libraries along.
            build prometheus github.com/prometheus/prometheus/cmd/prometheus "" -tags remove_all_sd,enable_kubernetes_sd
            ;;
        prometheus-adapter) build prometheus-adapter sigs.k8s.io/prometheus-adapter/cmd/adapter "" ;;
        kubeconform) build kubeconform github.com/yannh/kubeconform/cmd/kubeconform "" ;;
    esac
    cd ..
    rm -f "$out/.$program"-*
    touch "$out/.$program-$pins"
    echo "$program: built in $((SECONDS - started)) s"
done
