//! DHCP, TFTP and HTTP between network namespaces, against clients that we did not write: udhcpc, dhclient, dhcrelay,
//! dnsmasq, tftp-hpa, atftp, busybox, curl, OVMF's network stack and iPXE. Root is needed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dhcp;
mod discover;
mod firmware;
mod namespaces;
mod tftp;
mod wire;
