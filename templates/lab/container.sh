# Starts what is installed on a machine's disk as a container, in a mount namespace of its own: when the last process of it is gone,
# so are its mounts and its loop device.
# container.sh CONTAINER DISK MAC BRIDGE LINK up|down SCRATCH CONSOLE CGROUP
set -eu
container=$1 disk=$2 mac=$3 bridge=$4 link=$5 state=$6 scratch=$7 console=$8 cgroup=$9
mount -t tmpfs -o mode=700 tmpfs "$scratch"
mkdir "$scratch/root" "$scratch/cgroup"
root=$scratch/root

device=$(losetup --find --show --partscan "$disk")
trap 'losetup --detach "$device"' EXIT
# Where the kernel knows no GPT, its partitions are told to it.
partx --add "$device" 2>/dev/null || partx --update "$device"
# systemd-repart and systemd-growfs leave a container's disk alone, so the last partition is made as large as the disk here.
last=$(partx --bytes --noheadings --output NR,END "$device" | sort -k 2 -n | tail -n 1)
if [ "$((${last##* } + 4096))" -lt "$(blockdev --getsz "$device")" ]; then
    number=$(echo "${last% *}" | tr -d ' ')
    echo ', +' | sfdisk --quiet --no-reread --no-tell-kernel --partno "$number" "$device"
    partx --update "$device"
    e2fsck -f -p "${device}p$number" || [ $? -lt 4 ]
    resize2fs "${device}p$number"
fi

# The root file system is the largest one with an init in it; the seed is read by mtools, because not every kernel knows FAT.
found=
for part in $(lsblk --noheadings --bytes --list --paths --output SIZE,NAME "$device" | sort -rn | awk '{print $2}'); do
    if [ "$part" = "$device" ] || ! mount "$part" "$root" 2>/dev/null; then continue; fi
    if [ -x "$root/sbin/init" ] || [ -L "$root/sbin/init" ]; then
        found=$part
        break
    fi
    umount "$root"
done
[ -n "$found" ] || { echo "no partition of $disk has a system with /sbin/init" >&2; exit 1; }
for part in "$device"p*; do
    [ "$(blkid --probe --output value --match-tag LABEL "$part")" = CIDATA ] || continue
    seed=$root/var/lib/cloud/seed/nocloud
    mkdir -p -m 700 "$seed"
    # Its word on the geometry of the disk has no line's end.
    mcopy -n -o -i "$part" '::*' "$seed/"
    echo
done
# From here on it goes with its last user.
losetup --detach "$device"
trap - EXIT

# A container's own devices, and of disks only this one.
dev=$root/dev
mount -t tmpfs -o mode=755 tmpfs "$dev"
mkdir "$dev/pts" "$dev/shm" "$dev/mqueue" "$dev/block" "$dev/net"
for node in null zero full random urandom tty kmsg fuse net/tun; do
    [ ! -e "/dev/$node" ] || cp -a "/dev/$node" "$dev/$node"
done
for node in "$device" "$device"p*; do
    cp -a "$node" "$dev/"
    ln -s "../${node##*/}" "$dev/block/$(stat --format %Hr:%Lr "$node")"
done
ln -s /proc/self/fd "$dev/fd"
ln -s fd/0 "$dev/stdin"
ln -s fd/1 "$dev/stdout"
ln -s fd/2 "$dev/stderr"
ln -s pts/ptmx "$dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$dev/shm"
touch "$dev/console"
mount --bind "$console" "$dev/console"
mount -t tmpfs -o mode=755 tmpfs "$root/run"

# A control group of its own in each hierarchy: several in version 1, one in version 2.
for hierarchy in $(sed -n 's/^[0-9]*:\([^:]\{1,\}\):.*/\1/p' /proc/self/cgroup); do
    at=$scratch/cgroup/${hierarchy#name=}
    mkdir "$at"
    mount -t cgroup -o "$(echo "$hierarchy" | sed 's/^name=/none,name=/')" cgroup "$at"
    mkdir -p "$at/$cgroup"
    if [ -e "$at/cpuset.cpus" ]; then
        cat "$at/cpuset.cpus" >"$at/$cgroup/cpuset.cpus"
        cat "$at/cpuset.mems" >"$at/$cgroup/cpuset.mems"
        echo 1 >"$at/$cgroup/cgroup.clone_children"
    fi
    echo $$ >"$at/$cgroup/cgroup.procs"
    umount "$at"
done
version=1
if [ -z "$(ls "$scratch/cgroup")" ]; then
    version=2
    mount -t cgroup2 cgroup2 "$scratch/cgroup"
    for controller in $(cat "$scratch/cgroup/cgroup.controllers"); do
        echo "+$controller" >"$scratch/cgroup/cgroup.subtree_control" 2>/dev/null || true
    done
    mkdir -p "$scratch/cgroup/$cgroup"
    echo $$ >"$scratch/cgroup/$cgroup/cgroup.procs"
    umount "$scratch/cgroup"
else
    # What Kubernetes has to be told of control groups of version 1.
    echo 'KUBELET_EXTRA_ARGS=--fail-cgroupv1=false' >"$root/etc/default/kubelet"
    echo 'KUBEADM_EXTRA_ARGS=--ignore-preflight-errors=SystemVerification' >"$root/etc/default/kubeadm"
fi

exec 9</proc/self/ns/net
exec unshare --fork --kill-child --pid --net --uts --ipc --cgroup \
    sh -c "$container" container-init "$mac" "$bridge" "$link" "$state" "$root" "$version"
