# Container images, from archives: no registry is asked. They are pinned, so that kubelet does not throw away what it could not
# get again.
dir=/var/lib/metalgate/artifacts
images() {
    cat <<'LIST'
{% for image in images %}
{{ image.reference }} {{ image.path }}
{% endfor %}
LIST
}
missing() {
    there=$(ctr --namespace k8s.io images list 'labels."io.cri-containerd.pinned"==pinned' --quiet)
    images | while read -r reference path; do
        echo "$there" | grep -qxF "$reference" || echo "$reference $path"
    done
}
check() {
    [ -z "$(missing)" ]
}
apply() {
    list=/run/metalgate-images
    missing >"$list"
    total=$(wc -l <"$list") number=0
    while read -r reference path; do
        number=$((number + 1))
        echo "::importing $reference ($number of $total)"
        ctr --namespace k8s.io images import "$dir/$path" >/dev/null
        ctr --namespace k8s.io images label "$reference" io.cri-containerd.pinned=pinned >/dev/null
    done <"$list"
    rm "$list"
}
