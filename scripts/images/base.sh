#!/bin/sh
# Builds a base image from Debian's packages, for machines that reach no image registry (CI): Python, CA
# certificates and tini, as apt's own source for this release has them. Prints nothing but the image's name.
#
#   scripts/images/base.sh            reuses the image when this script has built it before
#   MIRROR=URL scripts/images/base.sh takes the packages from there
set -eu

SUITE=bookworm
PACKAGES=python3,python3-venv,ca-certificates,tini
IMAGE=localhost/callboard-base:$SUITE

# An image made by another version of this script is another image.
recipe=$(sha256sum "$0" | cut -c 1-16)
if [ "$(podman image inspect --format '{{index .Labels "recipe"}}' "$IMAGE" 2>/dev/null)" = "$recipe" ]; then
    echo "$IMAGE"
    exit 0
fi

mirror=${MIRROR:-$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    sed -n "s/^$SUITE main //p" | head -n 1)}
[ -n "$mirror" ] || {
    echo "images: apt knows no source of Debian $SUITE; name one: MIRROR=URL $0" >&2
    exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
if ! debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$root" "$mirror" >"$work/log" 2>&1; then
    tail -n 20 "$work/log" >&2
    echo "images: debootstrap failed" >&2
    exit 1
fi

# What only apt, a reader of manuals or this machine needs. Copyright files stay: the licences ask for it.
rm -rf "$root"/var/cache/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/tmp/* \
    "$root"/usr/share/man "$root"/usr/share/info "$root"/usr/share/locale "$root"/var/lib/dpkg/*-old \
    "$root"/etc/resolv.conf "$root"/etc/hostname "$root"/etc/machine-id
find "$root/usr/share/doc" ! -type d ! -name copyright -delete
find "$root/usr" -name __pycache__ -type d -prune -exec rm -rf {} +
# debootstrap leaves the mirror's address here.
: >"$root/etc/apt/sources.list"

tar -C "$root" --numeric-owner -c . | podman import --quiet \
    --change "LABEL recipe=$recipe" --change 'CMD ["python3"]' - "$IMAGE" >/dev/null
echo "$IMAGE"
