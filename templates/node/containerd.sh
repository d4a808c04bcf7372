# containerd with systemd's cgroups, the pause image that is there, and the directories of CNI plugins and mirrors. Its own default
# configuration is what is changed, so that it fits the version that the OS image has. No container is to be dearer to the kernel than
# containerd itself: its service has -999, so that takes nothing away, and without CAP_SYS_RESOURCE nothing else is possible.
config=/etc/containerd/config.toml
crictl='runtime-endpoint: unix:///run/containerd/containerd.sock'
wanted() {
    containerd config default | sed -E -e 's/SystemdCgroup = false/SystemdCgroup = true/' \
        -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
        -e 's#^( *sandbox_image = ).*#\1"{{ pause }}"#' -e "s#^( *sandbox = ).*#\1'{{ pause }}'#" \
        -e 's#^( *bin_dir = ).*#\1"/opt/cni/bin"#' -e 's#^( *config_path = ).*#\1"/etc/containerd/certs.d"#'
}
check() {
    wanted | cmp -s - "$config" && [ "$(cat /etc/crictl.yaml 2>/dev/null)" = "$crictl" ] &&
        systemctl --quiet is-active containerd && ctr version >/dev/null 2>&1
}
apply() {
    mkdir -p /etc/containerd /etc/cni/net.d
    echo "$crictl" >/etc/crictl.yaml
    wanted >"$config.new"
    mv "$config.new" "$config"
    systemctl --quiet enable containerd
    systemctl restart containerd
    for _ in $(seq 60); do
        ! ctr version >/dev/null 2>&1 || break
        sleep 1
    done
}
