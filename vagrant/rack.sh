#!/usr/bin/env bash
# What is around the machines of the Vagrantfile: their network, their BMCs, and the files that metalgate reads.
#
#   rack.sh up            Vagrant calls it before a machine is made: makes what is not there yet
#   rack.sh made MACHINE  Vagrant calls it after that: a new machine is switched off, as one in a rack is
#   rack.sh status        what is up, and what to run next
#   rack.sh down          Vagrant calls it after a machine is destroyed: removes everything once no machine is left
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
files=$here/rack
export LIBVIRT_DEFAULT_URI=qemu:///system

say() { echo "==> rack: $*" >&2; }
fail() {
    say "$@"
    exit 1
}

# within SECONDS COMMAND...: until it succeeds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { say "not within its time: $*"; return 1; }
        sleep 0.2
    done
}

settings() {
    [ -e "$files/settings" ] || fail "there is no rack: \`vagrant up\` makes one"
    # shellcheck source=/dev/null
    . "$files/settings"
    name=$METALGATE_RACK_NAME
    network=metalgate-$name
    # An interface's name has 15 characters at most.
    bridge=mgv-$name
    pool=/var/lib/libvirt/images/$network
    artifacts=${METALGATE_ARTIFACTS:-$HOME/.cache/metalgate/artifacts}
    prefix=${METALGATE_RACK_SUBNET%.0/24}
}

# alive FILE: whether the process is there whose id is in FILE, and is the one that wrote it.
alive() {
    local pid started
    [ -e "$1" ] && read -r pid started <"$1" && [ -n "$started" ] && [ "$(started_at "$pid")" = "$started" ]
}

# The kernel's own number for when a process started, because an id alone may be another's by now; nothing if it has ended.
started_at() { awk '$3 != "Z" {print $22}' "/proc/$1/stat" 2>/dev/null; }

# start NAME COMMAND...: in the background, with a log and a note of its id.
start() {
    local program=$1
    shift
    setsid "$@" >"$files/$program.log" 2>&1 </dev/null &
    echo "$! $(started_at $!)" >"$files/$program.process"
}

stop() {
    local note=$files/$1.process pid
    if alive "$note"; then
        read -r pid _ <"$note"
        kill "$pid"
        within 20 eval "! alive '$note'" || kill -KILL "$pid"
    fi
    rm -f "$note" "$files/$1.log"
}

# Hosts without systemd, such as containers, start nothing by themselves.
libvirt() {
    virsh uri >/dev/null 2>&1 && return
    if [ -d /run/systemd/system ] || [ "$(id -u)" -ne 0 ]; then
        virsh uri >/dev/null || fail "libvirt does not answer at $LIBVIRT_DEFAULT_URI: README.md, \"What it needs\""
    fi
    say "starting libvirt: nothing else does on this host"
    mkdir -p /run/libvirt
    start virtlogd virtlogd
    start libvirtd libvirtd
    within 30 virsh uri || { cat "$files/libvirtd.log" >&2; exit 1; }
}

network() {
    # Isolated and without DHCP: that is metalgate's part.
    virsh net-info "$network" >/dev/null 2>&1 || virsh --quiet net-define /dev/stdin <<-END
	<network>
	  <name>$network</name>
	  <bridge name='$bridge' stp='off' delay='0'/>
	  <ip address='$prefix.1' netmask='255.255.255.0'/>
	</network>
	END
    # After a reboot of the host, it is there but not up.
    virsh net-list --name | grep -q "^ *$network *$" || virsh --quiet net-start "$network"
}

# A place of their own for disks and firmware settings, so that nothing else is ever removed with them.
pool() {
    if ! virsh pool-info "$network" >/dev/null 2>&1; then
        virsh --quiet pool-define-as "$network" dir --target "$pool"
        virsh --quiet pool-build "$network"
    fi
    virsh pool-list --name | grep -q "^ *$network *$" || virsh --quiet pool-start "$network"
}

# bmc MACHINE UUID PORT: a Redfish service that knows this one machine.
bmc() {
    local machine=bmc-$1
    alive "$files/$machine.process" && return
    cat >"$files/$machine.conf" <<-END
	SUSHY_EMULATOR_LISTEN_IP = '$prefix.1'
	SUSHY_EMULATOR_LISTEN_PORT = $3
	SUSHY_EMULATOR_SSL_CERT = '$files/bmc.crt'
	SUSHY_EMULATOR_SSL_KEY = '$files/bmc.key'
	SUSHY_EMULATOR_AUTH_FILE = '$files/$machine.account'
	SUSHY_EMULATOR_STATE_DIR = '$files/$machine'
	SUSHY_EMULATOR_LIBVIRT_URI = '$LIBVIRT_DEFAULT_URI'
	SUSHY_EMULATOR_STORAGE_POOL = '$network'
	SUSHY_EMULATOR_ALLOWED_INSTANCES = ['$2']
	END
    mkdir -p "$files/$machine"
    start "$machine" "$sushy/bin/sushy-emulator" --config "$files/$machine.conf"
    within 60 curl --silent --insecure "https://$prefix.1:$3/redfish/v1/" || { cat "$files/$machine.log" >&2; exit 1; }
}

# account MACHINE PASSWORD: what its BMC lets in; read anew at each request.
account() {
    "$sushy/bin/python" -c 'import bcrypt; print("admin:" + bcrypt.hashpw(input().encode(), bcrypt.gensalt(4)).decode())' \
        <<<"$2" >"$files/bmc-$1.account"
}

# What metalgate reads: once, so that a person may change it.
inventory_and_spec() {
    [ -e "$files/cluster.yaml" ] && return
    [ ! -e "$files/work" ] || fail "$files/work is of a rack that is gone: remove it"
    local machine uuid mac address serial port password role=cp
    openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=bmc -keyout "$files/bmc.key" -out "$files/bmc.crt" 2>/dev/null
    ssh-keygen -q -t ed25519 -N '' -C "metalgate-$name" -f "$files/id_ed25519"
    {
        echo hostname,bmc_ip,bmc_username,bmc_password,mac,ip_address,netmask,gateway,nameservers,labels,disk,boot_mode
        while read -r machine firmware _ mac address serial port; do
            password=$(openssl rand -hex 8)
            account "$machine" "$password"
            echo "$machine,$prefix.1:$port,admin,$password,$mac,$address,255.255.255.0,$prefix.1,$prefix.1,type=$role,serial=$serial,$firmware"
            role=worker
        done <"$files/machines"
    } >"$files/hardware.csv"
    spec >"$files/cluster.yaml"
}

# The virtual rack's own template, with what the artifacts have.
spec() {
    "$sushy/bin/python" - "$here/../templates/lab/cluster.yaml.j2" "$artifacts/manifest.json" <<-END
	import json, jinja2, pathlib, sys
	template, manifest = map(pathlib.Path, sys.argv[1:])
	found = json.loads(manifest.read_text())["artifacts"] if manifest.exists() else []
	first = lambda kind: next((one for one in found if one["kind"] == kind and one["arch"] == "amd64"), None)
	image, kubeadm = first("os-image"), first("kubeadm")
	print(jinja2.Template(template.read_text()).render(
	    name="$name", endpoint="$prefix.10", interface="$bridge", user="ops",
	    public_key=pathlib.Path("$files/id_ed25519.pub").read_text().strip(), workers=$(wc -l <"$files/machines") - 1,
	    kubernetes=kubeadm and kubeadm["version"],
	    image=image and {"url": "file:" + image["path"], "sha256": image["sha256"]}))
	END
}

domain_state() { virsh domstate "$name-$1" 2>/dev/null; }
has_domain() { domain_state "$1" >/dev/null; }
all_machines() { while read -r machine _; do has_domain "$machine" || return 1; done <"$files/machines"; }
any_machine() { while read -r machine _; do if has_domain "$machine"; then return; fi; done <"$files/machines"; return 1; }

up() {
    settings
    umask 077
    sushy=$("$here/../tests/power/peers.sh" environment)
    libvirt
    network
    pool
    inventory_and_spec
    while read -r machine _ uuid _ _ _ port; do
        bmc "$machine" "$uuid" "$port"
    done <"$files/machines"
}

made() {
    settings
    [ -e "$files/$1.new" ] || return 0
    virsh --quiet destroy "$name-$1"
    if [ "$METALGATE_RACK_DRIVER" = qemu ]; then
        # All that QEMU can keep of what it has translated; vagrant-libvirt has no word for it.
        virsh dumpxml --inactive "$name-$1" | sed 's|<features>|&<tcg><tb-cache unit="MiB">2047</tb-cache></tcg>|' |
            virsh --quiet define /dev/stdin
    fi
    rm "$files/$1.new"
    if all_machines; then next; fi
}

next() {
    say "next:"
    if [ -n "$METALGATE_RACK_ADMIN" ]; then
        echo "vagrant ssh admin -c 'sudo metalgate create cluster -f /root/rack/cluster.yaml --hardware-csv /root/rack/hardware.csv" \
            "--artifacts /var/lib/metalgate/artifacts'"
    else
        echo "metalgate create cluster -f $files/cluster.yaml --hardware-csv $files/hardware.csv --work-dir $files/work"
    fi
}

status() {
    settings
    while read -r machine firmware _ _ address _ port; do
        alive "$files/bmc-$machine.process" && bmc=up || bmc=down
        printf '%-8s %-5s %-15s BMC %s:%s %-5s %s\n' "$machine" "$firmware" "$address" "$prefix.1" "$port" "$bmc" \
            "$(domain_state "$machine" || echo 'not made')"
    done <"$files/machines"
    next
}

down() {
    settings
    libvirt
    if has_domain admin || any_machine; then return; fi
    while read -r machine _; do
        stop "bmc-$machine"
    done <"$files/machines"
    # After a reboot of the host, nothing of it is up; all of it is removed.
    virsh --quiet pool-start "$network" 2>/dev/null || true
    if virsh --quiet pool-refresh "$network" 2>/dev/null; then
        # Firmware settings: vagrant-libvirt leaves them.
        virsh vol-list "$network" | awk 'NR > 2 && NF {print $1}' | xargs -r -n1 virsh --quiet vol-delete --pool "$network"
        virsh --quiet pool-destroy "$network"
        virsh --quiet pool-delete "$network"
        virsh --quiet pool-undefine "$network"
    fi
    if virsh net-info "$network" >/dev/null 2>&1; then
        virsh --quiet net-destroy "$network" 2>/dev/null || true
        virsh --quiet net-undefine "$network"
    fi
    stop libvirtd
    stop virtlogd
    rm -rf "$files" || fail "what \`sudo metalgate\` has written is left: sudo rm -r $files"
    say "nothing is left of it"
}

case "${1-}" in
up | status | down) "$1" ;;
made) made "$2" ;;
*) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
