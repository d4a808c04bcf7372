# Debian 13 packages by an apt configuration of our own, verified by Debian's archive keys; the host's apt is left alone.
# Sourced by `build`; wants $work, a folder to work in.

suite=trixie
debian_mirror=${METALGATE_DEBIAN_MIRROR:-http://deb.debian.org/debian}

apt13() {
    local tool=$1
    shift
    "$tool" -o Dir::Etc="$work/apt" -o Dir::Etc::sourceparts=/dev/null -o Dir::State="$work/apt/state" \
        -o Dir::State::status=/dev/null -o Dir::Cache="$work/apt/cache" -o APT::Architecture=amd64 \
        -o APT::Architectures=amd64 -o APT::Sandbox::User=root "$@"
}

apt13_update() {
    mkdir -p "$work"/apt/{state/lists/partial,cache/archives/partial,preferences.d,apt.conf.d}
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $debian_mirror $suite main" >"$work/apt/sources.list"
    apt13 apt-get update -q
}

# The version of a package that the archive has now.
apt13_version() {
    apt13 apt-cache show --no-all-versions "$1" | sed -n 's/^Version: //p'
}

# apt13_unpack PACKAGE DIR: downloads a package, and unpacks it without running anything of it.
apt13_unpack() {
    (cd "$work" && apt13 apt-get download -q "$1")
    dpkg-deb -x "$work/$1"_*.deb "$2"
}

# pool_unpack PATH SHA256 DIR: unpacks one exact package of any Debian release. A mirror drops a package when a newer one
# comes; Debian's archive of all packages keeps it.
pool_unpack() {
    local package="$work/${1##*/}" base
    for base in "$debian_mirror" https://snapshot.debian.org/archive/debian/20261101T000000Z; do
        curl --fail --silent --show-error --location --retry 3 --output "$package" "$base/$1" || continue
        echo "$2  $package" | sha256sum --check --quiet || continue
        dpkg-deb -x "$package" "$3"
        return
    done
    echo "no Debian mirror has ${1##*/} with the sha256 $2: a newer one has to be pinned" >&2
    return 1
}
