# The agent as a second initramfs segment: nothing but /init. Apart from the drivers, so that a rebuilt agent is a small
# file of its own. Sourced by `build`, which says in $agent where it is.

build_agent() {
    local out=$1
    mkdir -p "$work/init" "$out/boot/amd64"
    install -m 0755 "$agent" "$work/init/init"
    touch --date "@$SOURCE_DATE_EPOCH" "$work/init/init"
    (cd "$work/init" && echo init | cpio --quiet -o -H newc -R 0:0 --reproducible) |
        zstd -q -19 >"$out/boot/amd64/agent.cpio.zst"
    sed -n 's/^version = "\(.*\)"/\1/p' "$repository/Cargo.toml" | head -n 1 >"$out/version"
}
