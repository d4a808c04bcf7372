# Waits until nothing is left of a machine's container, and takes its control groups away: container-clean.sh DISK SCRATCH CGROUP
set -eu
disk=$1 scratch=$2 cgroup=$3
mount -t tmpfs -o mode=700 tmpfs "$scratch"
for hierarchy in $(sed -n 's/^[0-9]*:\([^:]\{1,\}\):.*/\1/p' /proc/self/cgroup); do
    mkdir "$scratch/${hierarchy#name=}"
    mount -t cgroup -o "$(echo "$hierarchy" | sed 's/^name=/none,name=/')" cgroup "$scratch/${hierarchy#name=}"
done
if [ -z "$(ls "$scratch")" ]; then
    mkdir "$scratch/unified"
    mount -t cgroup2 cgroup2 "$scratch/unified"
fi
for _ in $(seq 150); do
    left=$(losetup --noheadings --output NAME --associated "$disk")
    for device in $left; do
        losetup --detach "$device" 2>/dev/null || true
    done
    for group in "$scratch"/*/"$cgroup"; do
        [ -d "$group" ] || continue
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || left="$left $group"
    done
    [ -n "$left" ] || exit 0
    sleep 0.1
done
echo "still there: $left" >&2
exit 1
