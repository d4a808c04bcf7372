# kubelet as a service. kubeadm writes its settings and starts it; KUBELET_EXTRA_ARGS in /etc/default/kubelet, where Debian's
# package has it, is the operator's.
unit=/etc/systemd/system/kubelet.service
wanted() {
    cat <<'UNIT'
[Unit]
Description=Kubernetes node agent
Wants=network-online.target
After=network-online.target containerd.service
ConditionPathExists=/var/lib/kubelet/config.yaml

[Service]
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=/usr/local/bin/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
    --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
Restart=always
RestartSec=5
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
UNIT
}
check() {
    wanted | cmp -s - "$unit" && systemctl --quiet is-enabled kubelet
}
apply() {
    wanted >"$unit"
    systemctl daemon-reload
    systemctl --quiet enable kubelet
}
