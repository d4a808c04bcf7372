# The disk that the system runs from is made unreadable for firmware and installers: its partition tables and file systems go.
# The machine is switched off next; nothing else can run from it any more.
disk=/dev/$(lsblk --noheadings --output PKNAME "$(findmnt --noheadings --output SOURCE /)" | head -n 1)
check() {
    [ -e /run/metalgate-wiped ]
}
apply() {
    systemctl stop kubelet containerd 2>/dev/null || true
    for partition in $(lsblk --noheadings --list --paths --output NAME "$disk" | tac); do
        wipefs --all --force --quiet "$partition"
    done
    size=$(blockdev --getsz "$disk")
    dd if=/dev/zero of="$disk" bs=1M count=8 conv=notrunc,fsync status=none
    dd if=/dev/zero of="$disk" bs=512 seek=$((size - 2048)) count=2048 conv=notrunc,fsync status=none
    touch /run/metalgate-wiped
}
