# Kubernetes' and etcd's programs from their Go modules, static, in the versions that go/*/go.mod pins. Sourced by `build`.

# The version of the one module that go/FOLDER is there for.
go_version_of() { sed -n 's/^require [^ ]* \(v.*\)/\1/p' "$provisioning/go/$1/go.mod"; }

# A Go that can build the modules: this machine's, or Debian 13's, which fetches the one that go.mod names from the
# module proxy.
find_go() {
    (cd "$provisioning/go/$1" && go list -m >/dev/null 2>&1) && return
    apt13_update
    apt13_unpack golang-1.24-go "$work/go"
    apt13_unpack golang-1.24-src "$work/go"
    export PATH="$work/go/usr/lib/go-1.24/bin:$PATH" GOTOOLCHAIN=auto
}

# go_build FOLDER PACKAGE OUTPUT LDFLAGS
go_build() {
    find_go "$1"
    (cd "$provisioning/go/$1" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -ldflags "-s -w $4" -o "$3" "$2")
}

build_etcd() {
    local out=$1 version
    version=$(go_version_of etcd)
    go_build etcd go.etcd.io/etcd/server/v3 "$out/bootstrap/amd64/etcd" "-X go.etcd.io/etcd/api/v3/version.GitSHA=$version"
    echo "$version" >"$out/version"
}

build_kube_apiserver() {
    local out=$1 version minor
    version=$(go_version_of kubernetes)
    minor=${version#v1.} minor=${minor%%.*}
    # Without these the server says v0.0.0, and clients that check version skew refuse it.
    go_build kubernetes k8s.io/kubernetes/cmd/kube-apiserver "$out/bootstrap/amd64/kube-apiserver" \
        "-X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 \
         -X k8s.io/component-base/version.gitMinor=$minor"
    echo "$version" >"$out/version"
}
