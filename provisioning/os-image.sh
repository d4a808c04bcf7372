# The OS image: Debian 13 with cloud-init and SSH, for BIOS and UEFI, with what a Kubernetes node needs besides
# Kubernetes. Sourced by `build`.
#
# GPT: 1 BIOS boot, 2 ESP, 3 CIDATA (a NoCloud seed goes here), 4 root (x86-64), last so that it can grow. No loop device is
# needed: mke2fs and mtools write the file systems, sfdisk the table, and GRUB's two programs go where firmware looks.
# `os-image/root` is laid over the root file system.

# The cloud kernel starts fast in virtual machines; METALGATE_OS_KERNEL=linux-image-amd64 has every driver.
os_kernel=${METALGATE_OS_KERNEL:-linux-image-cloud-amd64}
os_packages=(
    "$os_kernel" systemd-sysv systemd-resolved systemd-timesyncd systemd-repart dbus udev initramfs-tools zstd openssh-server
    cloud-init cloud-guest-utils e2fsprogs sudo iproute2 iputils-ping ca-certificates curl
    containerd runc iptables conntrack socat ethtool ebtables kmod
)
# A node is updated when its operator says so; sshd's keys are cloud-init's; file systems are trimmed by who owns them.
os_masked=(apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service
    fstrim.timer sshd-keygen.service)
# What GRUB needs to read its configuration, find the root file system and start Linux: it loads nothing else.
grub_modules=(biosdisk part_gpt ext2 normal linux configfile probe echo test serial terminal gzio)

# The root file system of the image. Its settings are made while /proc and /sys are mounted in it.
os_root() {
    local list
    list=$(IFS=,; echo "${os_packages[*]}")
    mmdebstrap --mode=root --variant=minbase --include="$list" --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"; echo COMPRESS=zstd >"$1/etc/initramfs-tools/conf.d/metalgate"' \
        --customize-hook="cp -a --no-preserve=ownership '$provisioning/os-image/root/.' \"\$1\"" \
        --customize-hook='chroot "$1" systemctl --quiet enable systemd-networkd systemd-resolved ssh' \
        --customize-hook='chroot "$1" systemctl --quiet add-wants local-fs.target systemd-growfs-root.service' \
        --customize-hook='chroot "$1" systemctl --quiet disable containerd' \
        --customize-hook="chroot \"\$1\" systemctl --quiet mask ${os_masked[*]}" \
        "$suite" "$1" "$debian_mirror"
}

# What must not be the same on every machine is taken out, and what a first start would do on each is done once.
os_seal() {
    local root=$1
    rm -f "$root"/etc/ssh/ssh_host_* "$root"/etc/hostname "$root"/initrd.img.old "$root"/vmlinuz.old
    : >"$root/etc/machine-id"
    # GRUB says which partition is the root; an entry here could name another disk's.
    echo '# The root file system is mounted by the initramfs, from the partition that GRUB booted.' >"$root/etc/fstab"
    ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/log/*.log "$root"/tmp/* "$root"/run/*
    # Newer than /usr: the caches of hardware names and libraries are already made.
    touch "$root"/{etc,var}/.updated
}

# Writes a number into a file, little endian: poke FILE OFFSET BYTES VALUE
poke() {
    python3 -c 'import sys; sys.stdout.buffer.write(int(sys.argv[2]).to_bytes(int(sys.argv[1]), "little"))' "$3" "$4" |
        dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# GRUB for BIOS: boot.img in the first sector, core.img in the BIOS boot partition, each told where the next one is.
os_grub_bios() {
    local disk=$1 lba=$2 core="$work/core.img" boot="$work/boot.img"
    grub-mkimage -O i386-pc -o "$core" -p '(,gpt4)/boot/grub' "${grub_modules[@]}"
    cp /usr/lib/grub/i386-pc/boot.img "$boot"
    poke "$boot" 92 8 "$lba"
    poke "$core" 500 8 $((lba + 1))
    dd if="$boot" of="$disk" bs=440 count=1 conv=notrunc status=none
    dd if="$core" of="$disk" bs=512 seek="$lba" conv=notrunc status=none
}

# GRUB for UEFI: Debian's signed shim and GRUB, so that the image also starts under Secure Boot.
os_grub_efi() {
    local esp=$1 signed="$work/signed"
    apt13_update
    apt13_unpack shim-signed "$signed"
    apt13_unpack grub-efi-amd64-signed "$signed"
    mkfs.vfat -F 16 -n ESP "$esp" >/dev/null
    mmd -i "$esp" ::/EFI ::/EFI/BOOT ::/EFI/debian
    mcopy -i "$esp" "$signed/usr/lib/shim/shimx64.efi.signed" ::/EFI/BOOT/BOOTX64.EFI
    mcopy -i "$esp" "$signed/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" ::/EFI/BOOT/grubx64.efi
    mcopy -i "$esp" "$provisioning/os-image/esp-grub.cfg" ::/EFI/debian/grub.cfg
}

build_os_image() {
    local out=$1 root="$work/root" disk="$work/disk.raw" root_mib
    os_root "$root"
    os_seal "$root"
    # Room for the journal and first packages; the root file system grows to the disk on its first start.
    root_mib=$(($(du -sm --apparent-size "$root" | cut -f1) * 115 / 100 + 160))
    truncate -s "${root_mib}M" "$work/root.ext4"
    mke2fs -q -t ext4 -L root -m 1 -d "$root" "$work/root.ext4"
    truncate -s 32M "$work/esp.vfat"
    os_grub_efi "$work/esp.vfat"
    truncate -s 8M "$work/cidata.vfat"
    mkfs.vfat -F 12 -n CIDATA "$work/cidata.vfat" >/dev/null

    truncate -s $((1 + 1 + 32 + 8 + root_mib + 1))M "$disk"
    sfdisk --quiet "$disk" <<'TABLE'
label: gpt
start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649, name=bios
start=2MiB, size=32MiB, type=uefi, name=esp
start=34MiB, size=8MiB, type=linux, name=CIDATA
start=42MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root
TABLE
    dd if="$work/esp.vfat" of="$disk" bs=1M seek=2 conv=notrunc status=none
    dd if="$work/cidata.vfat" of="$disk" bs=1M seek=34 conv=notrunc status=none
    dd if="$work/root.ext4" of="$disk" bs=1M seek=42 conv=notrunc,sparse status=none
    os_grub_bios "$disk" 2048
    mkdir -p "$out/images"
    zstd -q -T0 -9 "$disk" -o "$out/images/debian-13.raw.zst"
    chroot "$root" dpkg-query -W -f '${Version}\n' base-files >"$out/version"
}
