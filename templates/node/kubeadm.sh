# kubeadm, as a service of its own: it goes on although the installer is killed, and is found again. What an attempt that
# failed has left is taken away first. KUBEADM_EXTRA_ARGS in /etc/default/kubeadm, if there is one, is the operator's.
state=/var/lib/metalgate/kubeadm
unit=metalgate-kubeadm
log=/var/log/metalgate-kubeadm.log

files() {
{% for file in files %}
    place {{ file.path }} {{ file.mode }} <<'CONTENT'
{{ file.content }}
CONTENT
{% endfor %}
}
check() {
    [ -e "$state/done" ]
}
start() {
    if [ -e /etc/kubernetes/kubelet.conf ] || [ -e /etc/kubernetes/bootstrap-kubelet.conf ] ||
        [ -n "$(ls /etc/kubernetes/manifests 2>/dev/null)" ]; then
        echo '::taking away what an earlier attempt left'
        kubeadm reset --force >>"$log" 2>&1
    fi
    mkdir -p -m 700 "$state"
    (umask 077; : >>"$log")
    files
    cat >"$state/run" <<'RUN'
cd /var/lib/metalgate/kubeadm
[ ! -e /etc/default/kubeadm ] || . /etc/default/kubeadm
if kubeadm {{ command }} --config config.yaml {{ options }} $KUBEADM_EXTRA_ARGS; then
    # Only while the first node is made is there no other account that kube-vip could use.
    [ ! -e /etc/kubernetes/manifests/kube-vip.yaml ] ||
        sed -i s/super-admin.conf/admin.conf/ /etc/kubernetes/manifests/kube-vip.yaml
    touch done
fi
rm -f config.yaml
RUN
    interface=$(ip -o -4 address show to {{ address }} | awk '{print $2; exit}')
    [ ! -e /etc/kubernetes/manifests/kube-vip.yaml ] ||
        sed -i "s/@INTERFACE@/$interface/" /etc/kubernetes/manifests/kube-vip.yaml
    systemctl reset-failed "$unit" 2>/dev/null || true
    systemd-run --quiet --unit="$unit" --property=StandardOutput=append:"$log" --property=StandardError=append:"$log" \
        /bin/sh "$state/run"
}
apply() {
    systemctl --quiet is-active "$unit" || start
    # One process that waits for lines and for the end, instead of many that look again and again.
    pid=$(systemctl show --property MainPID --value "$unit")
    [ "$pid" -eq 0 ] || tail --pid "$pid" --lines 1 --follow "$log" | sed --unbuffered --quiet 's/^\[/::[/p'
    for _ in $(seq 30); do
        systemctl --quiet is-active "$unit" || break
        sleep 1
    done
    [ -e "$state/done" ] || { tail -n 40 "$log"; return 1; }
}
