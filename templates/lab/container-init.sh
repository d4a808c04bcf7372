# The first process of a machine's container, in namespaces of its own, until the installed system's init takes its place.
# container-init.sh MAC BRIDGE LINK up|down ROOT CGROUP_VERSION; file 9 is the rack's network namespace.
set -eu
mac=$1 bridge=$2 link=$3 state=$4 root=$5 version=$6
ip link add eth0 address "$mac" type veth peer name "$link" netns /proc/self/fd/9
nsenter --net=/proc/self/fd/9 ip link set "$link" master "$bridge" "$state"
exec 9<&-
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o nosuid,nodev,noexec sysfs "$root/sys"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t mqueue mqueue "$root/dev/mqueue"
set -- container=metalgate TERM=linux PATH=/usr/sbin:/usr/bin:/sbin:/bin
if [ "$version" = 1 ]; then
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    for hierarchy in $(sed -n 's/^[0-9]*:\([^:]\{1,\}\):.*/\1/p' /proc/self/cgroup); do
        at=$root/sys/fs/cgroup/${hierarchy#name=}
        mkdir "$at"
        mount -t cgroup -o "$(echo "$hierarchy" | sed 's/^name=/none,name=/')" cgroup "$at"
    done
    # Version 1 only: systemd would mount version 2 beside it, and lose groups of one that it made in the other.
    set -- "$@" SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 \
        SYSTEMD_PROC_CMDLINE='systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1'
else
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
fi
# Read only: so systemd does not start udev, which would look at the host's devices.
mount -o remount,bind,ro "$root/sys"

# Settings of the whole kernel stay the host's: the container has a copy that it may write. Those of its network are its own.
settings=$root/run/host-settings
mkdir "$settings"
for part in kernel vm fs; do
    cp -r --no-preserve=ownership "/proc/sys/$part" "$settings/$part" 2>/dev/null || true
done
cat /proc/sys/kernel/random/uuid >"$settings/kernel/random/boot_id"
for own in hostname domainname random/uuid; do
    mount --bind "$root/proc/sys/kernel/$own" "$settings/kernel/$own"
done
for part in kernel vm fs; do
    mount --rbind "$settings/$part" "$root/proc/sys/$part"
done
echo 'Filename				Type		Size		Used		Priority' >"$settings/swaps"
mount --bind "$settings/swaps" "$root/proc/swaps"
[ ! -e "$root/proc/sysrq-trigger" ] || mount --bind /dev/null "$root/proc/sysrq-trigger"

cd "$root"
mkdir run/host
pivot_root . run/host
exec chroot . /usr/bin/env -i "$@" /bin/sh -c \
    'umount -l /run/host && rmdir /run/host && mount --make-rshared / && exec /sbin/init' </dev/console >/dev/console 2>&1
