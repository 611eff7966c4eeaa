#!/bin/sh
# What a container is here: a root of its own on a tmpfs, this machine's programs read-only in it, its volumes
# where the pod wants them, and then its command. Runs in mount and host name namespaces of its own (unshare --mount
# --uts), so all of it is gone with the container's last process.
#
#   sandbox.sh ROOT ro|rw WORKDIR USER GROUP CAPABILITIES [SOURCE TARGET ro|rw]… -- COMMAND…
#
# ROOT: an empty folder. USER, GROUP: numbers. CAPABILITIES: all or none.
set -eu
root=$1 mode=$2 workdir=$3 user=$4 group=$5 capabilities=$6
shift 6
# The container's PATH is for what is inside.
inner_path=$PATH
PATH=/usr/sbin:/usr/bin:/sbin:/bin
hostname "$HOSTNAME"

bind() { # SOURCE TARGET ro|rw
    if [ -d "$1" ]; then mkdir -p "$2"; else mkdir -p "$(dirname "$2")" && : >>"$2"; fi
    mount --bind "$1" "$2"
    mount -o "remount,bind,$3" "$2"
}

mount -t tmpfs -o mode=0755 tmpfs "$root"
cd "$root"
# Nothing of the machine is writable and nothing is created in it: a volume's folder that is missing in /usr fails.
bind /usr usr ro
for name in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$name" ]; then cp -P "/$name" .; elif [ -d "/$name" ]; then bind "/$name" "$name" ro; fi
done
mkdir -p app dev etc home opt proc root run srv sys tmp var/lib
ln -s ../run var/run
for name in passwd group nsswitch.conf ld.so.cache localtime; do
    [ ! -e "/etc/$name" ] || cp -P "/etc/$name" etc/
done
for name in ssl alternatives; do
    [ ! -d "/etc/$name" ] || bind "/etc/$name" "etc/$name" ro
done
for name in proc sys dev; do mount --rbind "/$name" "$name"; done

while [ "$1" != -- ]; do
    # /var/run is a link, also when a volume goes below it.
    bind "$1" "$root$(chroot "$root" realpath -m "$2")" "$3"
    shift 3
done
shift
mount -o "remount,$mode" "$root"

# The kernel ends the container when the agent dies: no process outlives a broken test. It forgets that when the
# user changes, so it is said last.
set -- setpriv --pdeathsig KILL -- env PATH="$inner_path" "$@"
if [ "$capabilities" = none ]; then set -- --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"; else set -- -- "$@"; fi
exec chroot "$root" env -C "$workdir" setpriv --reuid "$user" --regid "$group" --clear-groups "$@"
