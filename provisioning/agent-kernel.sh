# The kernel that the agent runs on, and the part of its initramfs that holds drivers. Sourced by `build`.
#
# The kernel is Debian's for real hardware (linux-image-amd64). Drivers are taken with all that they depend on, and
# unpacked: the agent loads them by modalias, and has no decompressor for them.

# What an installer needs to see a disk, a network, and the partitions it writes to.
modules=(
    # virtual machines
    virtio_pci virtio_mmio virtio_net virtio_blk virtio_scsi virtio_rng vmw_pvscsi vmxnet3 hv_netvsc hv_storvsc xen-netfront xen-blkfront
    # disks and controllers
    sd_mod sr_mod nvme ahci ata_piix ata_generic megaraid_sas mpt3sas mpi3mr smartpqi hpsa aacraid mptsas mptspi mvsas isci
    3w-9xxx arcmsr usb-storage uas xhci-pci ehci-pci mmc_block sdhci-pci sdhci-acpi
    # network interfaces
    e1000 e1000e igb igc ixgbe ixgbevf i40e iavf ice tg3 bnx2 bnx2x bnxt_en be2net cxgb4 enic qede r8169 sfc mlx4_en mlx5_core
    atlantic ena gve 8139cp 8139too ne2k-pci sky2 forcedeth
    # networks on top of them
    8021q bonding
    # file systems of seeds and boot partitions
    vfat nls_cp437 nls_iso8859-1 nls_ascii nls_utf8 ext4 efivarfs
)

build_agent_kernel() {
    local out=$1 package tree="$work/kernel" base="$work/initramfs" version module
    apt13_update
    package=$(apt13 apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: //p')
    apt13_unpack "$package" "$tree"
    version=${package#linux-image-}
    # Debian 13 keeps its modules below /usr/lib; depmod and the agent look below /lib.
    mkdir -p "$tree/lib" "$base"/{dev,proc,sys,run,tmp,etc,mnt,"lib/modules/$version"}
    [ -d "$tree/lib/modules" ] || ln -s ../usr/lib/modules "$tree/lib/modules"
    depmod -b "$tree" "$version"
    for module in "${modules[@]}"; do
        # A module that this kernel has built in, or does not have, is said and passed over.
        modprobe -d "$tree" -S "$version" --show-depends "$module" >"$work/depends" 2>/dev/null ||
            { echo "agent-kernel: this kernel has no module $module"; continue; }
        sed -n 's/^insmod \([^ ]*\).*/\1/p' "$work/depends"
    done >"$work/found"
    grep '^agent-kernel:' "$work/found" >&2 || true
    grep '^/' "$work/found" | sort -u | while read -r module; do
        local to="$base/lib/modules/$version/${module#*/modules/"$version"/}"
        mkdir -p "$(dirname "$to")"
        case $module in
        *.xz) xz -dc "$module" >"${to%.xz}" ;;
        *.zst) zstd -qdc "$module" >"${to%.zst}" ;;
        *) cp "$module" "$to" ;;
        esac
    done
    cp "$tree/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$base/lib/modules/$version/"
    depmod -b "$base" "$version"
    rm -f "$base/lib/modules/$version"/*.bin
    # The same packages give the same bytes, whenever they are unpacked.
    find "$base" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +

    mkdir -p "$out/boot/amd64"
    cp "$tree/boot/vmlinuz-$version" "$out/boot/amd64/vmlinuz"
    (cd "$base" && find . -mindepth 1 -print0 | sort -z | cpio --quiet -0 -o -H newc -R 0:0 --reproducible) |
        zstd -q -19 -T0 >"$out/boot/amd64/initramfs.cpio.zst"
    apt13_version "$package" >"$out/version"
}
