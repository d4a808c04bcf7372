# Programs from their Go modules, static, in the versions that go/*/go.mod pins. Sourced by `build`.

# The version that go/FOLDER pins: of the module it is there for, which is the first one that its go.mod requires.
go_version_of() { sed -nE 's/^(require )?\s*[^ ]+ (v[^ ]+)$/\2/p; T; q' "$provisioning/go/$1/go.mod"; }

# The folder of that module's own files, once it is downloaded.
go_module_dir() { (cd "$provisioning/go/$1" && go list -mod=readonly -m -f '{{.Dir}}' "$2"); }

# A Go that can build the modules: this machine's, or Debian 13's, which fetches the one that go.mod names from the
# module proxy.
find_go() {
    (cd "$provisioning/go/$1" && go list -m >/dev/null 2>&1) && return
    apt13_update
    apt13_unpack golang-1.24-go "$work/go"
    apt13_unpack golang-1.24-src "$work/go"
    export PATH="$work/go/usr/lib/go-1.24/bin:$PATH" GOTOOLCHAIN=auto
}

# go_build FOLDER OUT LDFLAGS PACKAGE...: all programs in one go, so that they share what they have in common.
go_build() {
    local folder=$1 out=$2 flags=$3
    shift 3
    find_go "$folder"
    mkdir -p "$out"
    (cd "$provisioning/go/$folder" && CGO_ENABLED=${CGO_ENABLED:-0} GOFLAGS=-mod=readonly \
        go build -trimpath -tags "${go_tags-}" -ldflags "-s -w $flags" -o "$out/" "$@")
}
