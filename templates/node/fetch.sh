# Files from the installer's HTTP server. A file is in its place only with the right sum, which is noted beside it.
dir=/var/lib/metalgate/artifacts
files() {
    cat <<'LIST'
{% for file in files %}
{{ file.sha256 }} {{ file.url }} {{ file.path }}
{% endfor %}
LIST
}
missing() {
    files | while read -r sum url path; do
        [ -f "$dir/$path" ] && [ "$(cat "$dir/$path.sha256" 2>/dev/null)" = "$sum" ] || echo "$sum $url $path"
    done
}
check() {
    [ -z "$(missing)" ]
}
apply() {
    mkdir -p "$dir"
    missing >"$dir/missing"
    total=$(wc -l <"$dir/missing") number=0
    while read -r sum url path; do
        number=$((number + 1))
        echo "::fetching ${path##*/} ($number of $total)"
        mkdir -p "$(dirname "$dir/$path")"
        curl --fail --silent --show-error --noproxy '*' --retry 5 --retry-connrefused --connect-timeout 10 \
            --speed-limit 1000 --speed-time 60 -o "$dir/$path.new" "$url"
        echo "$sum  $dir/$path.new" | sha256sum --check --status || {
            echo "$url does not have the sha256 $sum"
            return 1
        }
        mv "$dir/$path.new" "$dir/$path"
        echo "$sum" >"$dir/$path.sha256"
    done <"$dir/missing"
    rm "$dir/missing"
}
