#!/bin/sh
# Installs by apt what builds and runs images here: buildah, podman, runc, debootstrap.
# Touches nothing when all of it is there. Needs Debian or Ubuntu, as root.
set -eu

missing=
for tool in buildah podman runc debootstrap; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
[ -n "$missing" ] || exit 0
# podman looks for its network back-end even where containers share the host's network.
missing="$missing netavark"

if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
    echo "images: needs apt-get and root to install, or install these yourself:$missing" >&2
    exit 1
fi

echo "images: installing$missing"
install() {
    # shellcheck disable=SC2086 # a list of names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
# Known package lists may be stale or absent: fetch them only if the first try fails.
install 2>/dev/null || { apt-get update -qq && install; }
