# The machine leaves the cluster; what the cluster has written on it goes.
check() {
    [ ! -e /etc/kubernetes/kubelet.conf ] && [ ! -e /var/lib/metalgate/kubeadm/done ]
}
apply() {
    kubeadm reset --force || true
    systemctl stop kubelet || true
    rm -rf /etc/kubernetes /etc/cni/net.d/* /var/lib/metalgate/kubeadm /var/lib/metalgate/manager
}
