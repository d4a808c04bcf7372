# Kubernetes' programs and the plugins of container networks.
dir=/var/lib/metalgate/artifacts
plugins=$dir/{{ cni_plugins }}
check() {
{% for path in programs %}
    cmp -s "$dir/{{ path }}" /usr/local/bin/{{ path | split("/") | last }} || return 1
{% endfor %}
    [ "$(cat "$plugins.sha256")" = "$(cat /opt/cni/bin/.sha256 2>/dev/null)" ]
}
apply() {
    mkdir -p /opt/cni/bin /usr/local/bin
{% for path in programs %}
    install -m 755 "$dir/{{ path }}" /usr/local/bin/
{% endfor %}
    tar -xzf "$plugins" -C /opt/cni/bin --no-same-owner
    cp "$plugins.sha256" /opt/cni/bin/.sha256
}
