#!/bin/sh
# Installs by apt what the tests use and a machine may lack: Redis and Prometheus (with promtool) as Debian
# ships them, libfaketime, curl, and what the cluster of tests/cluster asks of the machine: openssl, ip, nsenter.
# Touches nothing when all of it is there. Needs Debian or Ubuntu, as root or with sudo.
set -eu

missing=
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
[ -n "$(find /usr/lib /usr/local/lib -name 'libfaketime.so.1' -print -quit 2>/dev/null)" ] \
    || missing="$missing libfaketime"
command -v curl >/dev/null 2>&1 || missing="$missing curl"
{ command -v promtool && command -v prometheus; } >/dev/null 2>&1 || missing="$missing prometheus"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v nsenter >/dev/null 2>&1 || missing="$missing util-linux"
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null 2>&1 || {
    echo "install-services: no apt-get here; install these yourself:$missing" >&2
    exit 1
}
sudo=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
        echo "install-services: needs root or sudo to install:$missing" >&2
        exit 1
    }
    sudo=sudo
fi

install() {
    # shellcheck disable=SC2086 # a list of names
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

echo "install-services: installing$missing"
# Debian starts a server when a package brings one; the tests bring their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod +x "$policy"
    trap '$sudo rm -f "$policy"' EXIT
fi
# Known package lists may be stale or absent: fetch them only if the first try fails.
install 2>/dev/null || { $sudo apt-get update -qq && install; }
