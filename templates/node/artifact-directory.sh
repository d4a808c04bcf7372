# What a manager on this node serves to later machines: the list of the files that are there.
dir=/var/lib/metalgate/artifacts
wanted() {
    cat <<'MANIFEST'
{{ manifest | tojson }}
MANIFEST
}
check() {
    wanted | cmp -s - "$dir/manifest.json"
}
apply() {
    mkdir -p "$dir"
    wanted >"$dir/manifest.json.new"
    mv "$dir/manifest.json.new" "$dir/manifest.json"
}
