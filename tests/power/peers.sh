#!/usr/bin/env bash
# The peers of the power tests: sushy-tools (Redfish) and VirtualBMC (IPMI) in front of virtual machines of libvirt.
#
#   peers.sh prepare      installs what the peers need; prints the directory of their Python environment
#   peers.sh environment  makes that environment only; vagrant/rack.sh asks for it
#   peers.sh serve DIR    starts them with that environment, prints `ready FINGERPRINT`, and waits for the end of stdin
#
# `serve` wants to be PID 1 of fresh PID, mount and network namespaces. Then all it makes is private and nothing can stay
# behind: its files are in memory, its addresses are its own, and the kernel ends every process with the first.
set -euo pipefail
cd "$(dirname "$0")"
. ../private.sh

prepare() {
    ../setup power
    environment
}

environment() {
    local cache=${METALGATE_CACHE:-$HOME/.cache/metalgate} environment
    environment=$cache/venv-$(sha256sum requirements.txt | cut -c1-16)
    mkdir -p "$cache"
    exec 9>"$environment.lock"
    flock 9
    if [ ! -e "$environment/complete" ]; then
        rm -rf "$environment"
        # Debian's own interpreter: its libvirt module fits no other.
        /usr/bin/python3 -m venv --system-site-packages "$environment" >&2
        "$environment/bin/pip" install --quiet --no-input --disable-pip-version-check -r requirements.txt >&2
        touch "$environment/complete"
    fi
    echo "$environment"
}

# within SECONDS COMMAND...: until it succeeds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { echo "not within its time: $*" >&2; return 1; }
        sleep 0.2
    done
}

start_libvirt() {
    # libvirtd does not start without this account, whatever its configuration says.
    echo 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin' >>/etc/passwd
    echo 'libvirt-qemu:x:64055:' >>/etc/group
    cat >/etc/libvirt/libvirtd.conf <<-END
	auth_unix_rw = "none"
	END
    # Plain processes of root: no groups, namespaces or labels that would outlive them.
    cat >/etc/libvirt/qemu.conf <<-END
	user = "root"
	group = "root"
	security_driver = "none"
	cgroup_controllers = []
	namespaces = []
	remember_owner = 0
	stdio_handler = "file"
	END
    libvirtd >libvirtd.log 2>&1 &
    within 20 virsh list || { cat libvirtd.log >&2; virsh list >&2; ls -la /run/libvirt >&2; exit 1; }
}

# 198.51.100.9 takes every packet and never answers: the far end of the cable is there, but nobody listens at it.
silent_address() {
    ip link add silent type veth peer name nobody
    ip address add 198.51.100.1/24 dev silent
    ip link set silent up
    ip link set nobody up
    ip neighbour add 198.51.100.9 lladdr 02:00:00:00:00:09 nud permanent dev silent
}

# machine NAME UUID [LOADER]: BIOS, or UEFI with that firmware; powered off, and told to start from its disk.
machine() {
    local loader=
    if [ $# -eq 3 ]; then
        cp /usr/share/OVMF/OVMF_VARS_4M.fd "$1.fd"
        loader="<loader readonly='yes' type='pflash'>$3</loader><nvram>/run/peers/$1.fd</nvram>"
    fi
    truncate -s 1M "$1.img"
    cat >"$1.xml" <<-END
	<domain type='qemu'>
	  <name>$1</name>
	  <uuid>$2</uuid>
	  <memory unit='MiB'>64</memory>
	  <os><type arch='x86_64' machine='q35'>hvm</type>$loader<boot dev='hd'/></os><features><acpi/></features>
	  <devices>
	    <disk type='file' device='disk'><source file='/run/peers/$1.img'/><target dev='vda' bus='virtio'/></disk>
	    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
	    <interface type='user'/>
	  </devices>
	</domain>
	END
    virsh --quiet define "$1.xml" >&2
}

# sushy PORT [LINE...]: an emulator with these further lines of configuration.
sushy() {
    local port=$1
    shift
    mkdir "sushy-$port"
    printf '%s\n' "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'" "SUSHY_EMULATOR_LISTEN_PORT = $port" \
        "SUSHY_EMULATOR_LIBVIRT_URI = 'qemu:///system'" "SUSHY_EMULATOR_STATE_DIR = '/run/peers/sushy-$port'" \
        "SUSHY_EMULATOR_AUTH_FILE = '/run/peers/accounts'" \
        "SUSHY_EMULATOR_BOOT_LOADER_MAP = {'UEFI': {'x86_64': '/usr/share/OVMF/OVMF_CODE_4M.fd'}, 'Legacy': {'x86_64': None}}" \
        "SUSHY_EMULATOR_SECURE_BOOT_DISABLED_NVRAM = '/usr/share/OVMF/OVMF_VARS_4M.fd'" "$@" >"sushy-$port.conf"
    "$environment/bin/sushy-emulator" --config "/run/peers/sushy-$port.conf" >"sushy-$port.log" 2>&1 &
}

serve() {
    environment=$1
    ip link set lo up
    silent_address
    private_files
    mkdir /run/peers
    export HOME=/run/peers TMPDIR=/run/peers
    cd /run/peers
    start_libvirt
    # Where sushy-tools keeps the images of virtual CDs.
    mkdir images
    virsh --quiet pool-create-as default dir --target /run/peers/images >&2
    machine plain 11111111-1111-4111-8111-111111111111
    machine uefi 22222222-2222-4222-8222-222222222222 /usr/share/OVMF/OVMF_CODE_4M.fd
    machine ipmi 33333333-3333-4333-8333-333333333333

    "$environment/bin/python" -c 'import bcrypt; print("admin:" + bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode())' >accounts
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=bmc -keyout bmc.key -out bmc.crt 2>/dev/null
    # In the clear, with one machine; and over TLS, with all of them.
    sushy 8000 "SUSHY_EMULATOR_ALLOWED_INSTANCES = ['11111111-1111-4111-8111-111111111111']"
    sushy 8443 "SUSHY_EMULATOR_SSL_CERT = '/run/peers/bmc.crt'" "SUSHY_EMULATOR_SSL_KEY = '/run/peers/bmc.key'"

    "$environment/bin/vbmcd" --foreground >vbmcd.log 2>&1 &
    within 60 "$environment/bin/vbmc" --no-daemon list
    "$environment/bin/vbmc" --no-daemon add ipmi --address 127.0.0.1 --port 6230 --username admin --password right
    "$environment/bin/vbmc" --no-daemon start ipmi
    within 60 curl --silent --fail http://127.0.0.1:8000/redfish/v1/
    within 60 curl --silent --fail --insecure https://127.0.0.1:8443/redfish/v1/
    within 60 ipmitool -I lanplus -H 127.0.0.1 -p 6230 -U admin -P right chassis status

    echo "ready $(openssl x509 -in bmc.crt -outform der | sha256sum | cut -d' ' -f1)"
    cat >/dev/null
}

"$@"
