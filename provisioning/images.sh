# Container images, packed by metalgate itself from a folder. Sourced by `build`.
#
# Their programs lie where the published images have them, because manifests name them there. Format 1: a change here that
# changes the images makes them anew.

# pack OUT NAME REFERENCE ROOT [ARGUMENT...]: OUT/containers/amd64/NAME.tar
pack() {
    local file=$1/containers/amd64/$2.tar reference=$3 root=$4
    shift 4
    mkdir -p "${file%/*}"
    "$metalgate" artifacts pack --root "$root" --reference "$reference" "$@" "$file"
}

# new_root NAME: an empty folder for an image's files.
new_root() {
    mkdir -p "$work/roots/$1"
    chmod 755 "$work/roots" "$work/roots/$1"
    echo "$work/roots/$1"
}

# Whom programs trust on the internet, from Debian.
certificates() { install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"; }

# busybox ROOT APPLET...: a shell's few commands.
busybox() {
    local root=$1 applet
    shift
    apt13_update
    apt13_unpack busybox-static "$work/busybox"
    mkdir -p "$root/bin"
    cp "$work/busybox/usr/bin/busybox" "$root/bin/busybox"
    for applet; do ln -s busybox "$root/bin/$applet"; done
}

# What kube-proxy and flannel call: Debian's iptables (nftables' and the legacy one), nft, ipset and conntrack with the
# libraries they need, and a shell, cp, ip and modprobe from busybox. `iptables` is nftables' one, as on the nodes.
netfilter_root() {
    local root=$1 family command folder
    # Unpacked only: nothing of the packages is run.
    mmdebstrap --mode=root --variant=extract --include=iptables,nftables,ipset,conntrack,busybox-static \
        --aptopt='Acquire::Languages "none"' "$suite" "$work/netfilter" "$debian_mirror"
    (
        cd "$work/netfilter"
        # nft looks protocols up by their names.
        mv etc/protocols etc/services .
        rm -rf dev etc var usr/share usr/lib/systemd usr/lib/x86_64-linux-gnu/gconv
        mkdir -p etc dev proc run sys tmp var
        mv protocols services etc/
        for folder in bin sbin lib lib64; do [ -e "$folder" ] || ln -s "usr/$folder" "$folder"; done
        for family in ip ip6; do
            for command in tables tables-save tables-restore; do
                ln -sf xtables-nft-multi "usr/sbin/$family$command"
            done
        done
        for command in sh cp mv ln ls cat ip; do [ -e "usr/bin/$command" ] || ln -s busybox "usr/bin/$command"; done
        ln -s ../bin/busybox usr/sbin/modprobe
    )
    cp -a "$work/netfilter/." "$root"
}
