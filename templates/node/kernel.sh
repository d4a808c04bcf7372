# What pods' networks and containers' file systems need of the kernel, now and after every start. Whether it is there is asked of
# the kernel: what is built in is no module.
modules='overlay br_netfilter'
settings='net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1
    fs.inotify.max_user_instances=8192 fs.inotify.max_user_watches=524288 vm.overcommit_memory=1 kernel.panic=10
    kernel.panic_on_oops=1'

check() {
    for module in $modules; do
        grep -qx "$module" /etc/modules-load.d/kubernetes.conf || return 1
    done
    grep -qw overlay /proc/filesystems && [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || return 1
    for setting in $settings; do
        [ "$(sysctl -n "${setting%%=*}")" = "${setting#*=}" ] && grep -qx "$setting" /etc/sysctl.d/90-kubernetes.conf || return 1
    done
} 2>/dev/null
apply() {
    printf '%s\n' $modules >/etc/modules-load.d/kubernetes.conf
    modprobe -a $modules || true
    printf '%s\n' $settings >/etc/sysctl.d/90-kubernetes.conf
    sysctl -q -p /etc/sysctl.d/90-kubernetes.conf
}
