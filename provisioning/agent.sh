# The agent as a second initramfs segment: nothing but /init. Apart from the drivers, so that a rebuilt agent is a small
# file of its own. Sourced by `build`.

agent=${METALGATE_AGENT:-$repository/target/x86_64-unknown-linux-musl/release/metalgate-agent}

build_agent() {
    local out=$1
    [ -x "$agent" ] || { echo "there is no $agent: build it with \`make build\`, or name it in METALGATE_AGENT" >&2; return 1; }
    mkdir -p "$work/init" "$out/boot/amd64"
    install -m 0755 "$agent" "$work/init/init"
    (cd "$work/init" && echo init | cpio --quiet -o -H newc -R 0:0 --reproducible) |
        zstd -q -19 >"$out/boot/amd64/agent.cpio.zst"
    sed -n 's/^version = "\(.*\)"/\1/p' "$repository/Cargo.toml" | head -n 1 >"$out/version"
}
