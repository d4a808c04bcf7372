# iPXE's boot programs as Debian builds them, unmodified. Sourced by `build`.
#
# Debian 13 has iPXE 1.21; this is 2.0 from the releases after it, one exact package: the programs need nothing of the
# system they come from.

ipxe_version=2.0.0+dfsg-5
ipxe_sha256=f0f2b3df949f3207e2ca5c1324d23d0ad94a968c3d53e18ed8ea57b12f24a4bb

build_ipxe() {
    local out=$1 tree="$work/ipxe"
    pool_unpack "pool/main/i/ipxe/ipxe_${ipxe_version}_all.deb" "$ipxe_sha256" "$tree"
    mkdir -p "$out"/ipxe/{amd64,arm64}
    cp "$tree/usr/lib/ipxe/undionly.kpxe" "$out/ipxe/undionly.kpxe"
    cp "$tree/usr/lib/ipxe/ipxe-amd64.efi" "$out/ipxe/amd64/ipxe.efi"
    cp "$tree/usr/lib/ipxe/snponly.efi" "$out/ipxe/amd64/snponly.efi"
    # Debian has no snponly.efi for arm64.
    cp "$tree/usr/lib/ipxe/ipxe-arm64.efi" "$out/ipxe/arm64/ipxe.efi"
    echo "$ipxe_version" >"$out/version"
}
