# How containerd gets images that pods name: mirrors in the place of registries (hosts.toml, which it reads at every pull), and a
# proxy, which it is started with.
wanted() {
{% for file in files %}
    "$1" {{ file.path }} {{ file.mode }} <<'CONTENT'
{{ file.content }}
CONTENT
{% endfor %}
    :
}
differs() {
    base64 -d | cmp -s - "$1" || echo "$1"
}
check() {
    [ -z "$(wanted differs)" ]
}
apply() {
    wanted place
    systemctl daemon-reload
    ! systemctl --quiet is-active containerd || systemctl restart containerd
}
