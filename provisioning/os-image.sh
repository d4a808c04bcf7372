# The OS image: Debian 13 with cloud-init and SSH, for BIOS and UEFI, with what a Kubernetes node needs besides
# Kubernetes. Sourced by `build`.
#
# GPT: 1 BIOS boot, 2 ESP, 3 CIDATA (a NoCloud seed goes here), 4 root, last so that it can grow. No loop device is
# needed: mke2fs and mtools write the file systems, sfdisk the table, and grub's two images go where it looks for them.

# The cloud kernel starts fast in virtual machines; METALGATE_OS_KERNEL=linux-image-amd64 has every driver.
os_kernel=${METALGATE_OS_KERNEL:-linux-image-cloud-amd64}
os_packages=(
    "$os_kernel" systemd-sysv systemd-resolved dbus udev initramfs-tools zstd openssh-server cloud-init sudo
    cloud-guest-utils e2fsprogs iproute2 iputils-ping ca-certificates curl
    containerd runc iptables conntrack socat ethtool ebtables kmod
)
grub_modules=(part_gpt part_msdos ext2 fat normal linux search search_label configfile echo test serial terminal gzio)

os_root() {
    local list
    list=$(IFS=,; echo "${os_packages[*]}")
    mmdebstrap --mode=root --variant=minbase --include="$list" --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"; echo "COMPRESS=zstd" >"$1/etc/initramfs-tools/conf.d/metalgate"' \
        "$suite" "$1" "$debian_mirror"
}

os_settings() {
    local root=$1 unit
    echo 'LABEL=root / ext4 defaults,x-systemd.growfs 0 1' >"$root/etc/fstab"
    echo 'datasource_list: [NoCloud, None]' >"$root/etc/cloud/cloud.cfg.d/90-metalgate.cfg"
    # Keys and identity are made on each machine, never shared by all of them.
    rm -f "$root"/etc/ssh/ssh_host_*
    : >"$root/etc/machine-id"
    ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
    rm -f "$root/etc/hostname"
    chroot "$root" systemctl --quiet enable systemd-networkd systemd-resolved ssh
    # A node is updated when its operator says so, and containerd is started when Kubernetes is installed.
    for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
        fstrim.timer; do
        chroot "$root" systemctl --quiet mask "$unit"
    done
    chroot "$root" systemctl --quiet disable containerd
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/log/*.log "$root"/tmp/*
    mkdir -p "$root/boot/grub"
    cat >"$root/boot/grub/grub.cfg" <<'CFG'
set timeout=0
serial --unit=0 --speed=115200
terminal_output console serial
search --no-floppy --label root --set=root
linux /vmlinuz root=LABEL=root ro console=tty0 console=ttyS0,115200
initrd /initrd.img
boot
CFG
}

# Writes a number into a file, little endian: poke FILE OFFSET BYTES VALUE
poke() {
    python3 -c 'import sys; sys.stdout.buffer.write(int(sys.argv[2]).to_bytes(int(sys.argv[1]), "little"))' "$3" "$4" |
        dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# GRUB for BIOS: boot.img in the first sector, core.img in the BIOS boot partition, each told where the next one is.
os_grub_bios() {
    local disk=$1 lba=$2 core="$work/core.img" boot="$work/boot.img"
    grub-mkimage -O i386-pc -o "$core" -c "$work/early.cfg" -p /boot/grub biosdisk "${grub_modules[@]}"
    cp /usr/lib/grub/i386-pc/boot.img "$boot"
    poke "$boot" 92 8 "$lba"
    poke "$core" 500 8 $((lba + 1))
    dd if="$boot" of="$disk" bs=440 count=1 conv=notrunc status=none
    dd if="$core" of="$disk" bs=512 seek="$lba" conv=notrunc status=none
}

os_grub_efi() {
    local esp=$1
    grub-mkimage -O x86_64-efi -o "$work/BOOTX64.EFI" -c "$work/early.cfg" -p /boot/grub "${grub_modules[@]}" \
        all_video efi_gop
    mkfs.vfat -F 16 -n ESP "$esp" >/dev/null
    mmd -i "$esp" ::/EFI ::/EFI/BOOT
    mcopy -i "$esp" "$work/BOOTX64.EFI" ::/EFI/BOOT/BOOTX64.EFI
}

build_os_image() {
    local out=$1 root="$work/root" disk="$work/disk.raw" root_mib
    os_root "$root"
    os_settings "$root"
    # Room for the journal and first packages; the root file system grows to the disk on its first start.
    root_mib=$(($(du -sm --apparent-size "$root" | cut -f1) * 115 / 100 + 160))
    truncate -s "${root_mib}M" "$work/root.ext4"
    mke2fs -q -t ext4 -L root -m 1 -d "$root" "$work/root.ext4"
    truncate -s 32M "$work/esp.vfat"
    truncate -s 8M "$work/cidata.vfat"
    mkfs.vfat -F 12 -n CIDATA "$work/cidata.vfat" >/dev/null
    printf 'search --no-floppy --label root --set=root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n' \
        >"$work/early.cfg"

    truncate -s $((1 + 1 + 32 + 8 + root_mib + 1))M "$disk"
    sfdisk --quiet "$disk" <<'TABLE'
label: gpt
start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649, name=bios
start=2MiB, size=32MiB, type=uefi, name=esp
start=34MiB, size=8MiB, type=linux, name=CIDATA
start=42MiB, type=linux, name=root
TABLE
    os_grub_efi "$work/esp.vfat"
    dd if="$work/esp.vfat" of="$disk" bs=1M seek=2 conv=notrunc status=none
    dd if="$work/cidata.vfat" of="$disk" bs=1M seek=34 conv=notrunc status=none
    dd if="$work/root.ext4" of="$disk" bs=1M seek=42 conv=notrunc,sparse status=none
    os_grub_bios "$disk" 2048
    mkdir -p "$out/images"
    zstd -q -T0 -9 "$disk" -o "$out/images/debian-13.raw.zst"
    chroot "$root" dpkg-query -W -f '${Version}\n' base-files >"$out/version"
}
