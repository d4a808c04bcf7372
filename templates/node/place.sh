# place PATH MODE: the file with what comes in, in base64.
place() {
    mkdir -p "$(dirname "$1")"
    (umask 077; base64 -d >"$1.new")
    chmod "$2" "$1.new"
    mv "$1.new" "$1"
}
