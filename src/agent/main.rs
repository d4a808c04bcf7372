//! The `metalgate-agent` binary: /init of the installation initramfs.

fn main() {}
