# etcd and kube-apiserver from their Go modules, static, with the versions that go.mod pins. Sourced by `build`.

kubernetes_version() { sed -n 's/^require k8s.io\/kubernetes \(v.*\)/\1/p' "$provisioning/go/kubernetes/go.mod"; }
etcd_version() { sed -n 's/^require go.etcd.io\/etcd\/server\/v3 \(v.*\)/\1/p' "$provisioning/go/etcd/go.mod"; }

# go_build MODULE-FOLDER PACKAGE OUTPUT LDFLAGS
go_build() {
    (cd "$provisioning/go/$1" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -ldflags "-s -w $4" -o "$3" "$2")
}

build_bootstrap() {
    local out=$1 version minor
    command -v go >/dev/null || { echo "Go is needed to build etcd and kube-apiserver: apt-get install golang-go" >&2; return 1; }
    mkdir -p "$out/bootstrap/amd64"
    go_build etcd go.etcd.io/etcd/server/v3 "$out/bootstrap/amd64/etcd" \
        "-X go.etcd.io/etcd/api/v3/version.GitSHA=$(etcd_version)"
    version=$(kubernetes_version)
    minor=${version#v1.} minor=${minor%%.*}
    # Without these the server says v0.0.0, and clients that check version skew refuse it.
    go_build kubernetes k8s.io/kubernetes/cmd/kube-apiserver "$out/bootstrap/amd64/kube-apiserver" \
        "-X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 \
         -X k8s.io/component-base/version.gitMinor=$minor"
    echo "$version" >"$out/version"
}
