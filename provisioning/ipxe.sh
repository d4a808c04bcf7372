# iPXE's boot programs as Debian 13 builds them, unmodified. Sourced by `build`.

build_ipxe() {
    local out=$1 tree="$work/ipxe"
    apt13_update
    apt13_unpack ipxe "$tree"
    mkdir -p "$out"/ipxe/{amd64,arm64}
    cp "$tree/usr/lib/ipxe/undionly.kpxe" "$out/ipxe/undionly.kpxe"
    cp "$tree/usr/lib/ipxe/ipxe-amd64.efi" "$out/ipxe/amd64/ipxe.efi"
    cp "$tree/usr/lib/ipxe/snponly.efi" "$out/ipxe/amd64/snponly.efi"
    cp "$tree/usr/lib/ipxe/ipxe-arm64.efi" "$out/ipxe/arm64/ipxe.efi"
    apt13_version ipxe >"$out/version"
}
