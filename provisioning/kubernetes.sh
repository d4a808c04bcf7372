# Kubernetes and what a node needs besides: programs, and the container images that kubeadm and flannel's manifest name.
# Sourced by `build`; go.sh builds, images.sh packs.

etcd_image=3.6.8-0   # what this kubeadm asks for, as the two below: cmd/kubeadm/app/constants
pause_image=3.10.2
coredns_image=v1.14.2
cni_plugins=github.com/containernetworking/plugins/plugins

build_etcd() {
    local out=$1 version root
    version=$(go_version_of etcd)
    go_build etcd "$work/bin" "-X go.etcd.io/etcd/api/v3/version.GitSHA=$version" \
        go.etcd.io/etcd/server/v3 go.etcd.io/etcd/etcdctl/v3
    install -D "$work/bin/server" "$out/bootstrap/amd64/etcd"
    root=$(new_root etcd)
    install -D "$work/bin/server" "$root/usr/local/bin/etcd"
    install -D "$work/bin/etcdctl" "$root/usr/local/bin/etcdctl"
    pack "$out" etcd "registry.k8s.io/etcd:$etcd_image" "$root"
    echo "$version" >"$out/version"
}

build_kubernetes() {
    local out=$1 version minor program root
    version=$(go_version_of kubernetes)
    minor=${version#v1.} minor=${minor%%.*}
    # Without these the programs say v0.0.0, and kubeadm and clients that check version skew refuse them.
    go_build kubernetes "$work/bin" \
        "-X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 \
         -X k8s.io/component-base/version.gitMinor=$minor -X k8s.io/component-base/version.gitTreeState=clean" \
        k8s.io/kubernetes/cmd/{kubeadm,kubelet,kubectl,kube-apiserver,kube-controller-manager,kube-scheduler,kube-proxy}
    install -D -t "$out/node/amd64" "$work"/bin/{kubeadm,kubelet,kubectl}
    install -D -t "$out/bootstrap/amd64" "$work/bin/kube-apiserver"
    for program in kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do
        root=$(new_root "$program")
        [ "$program" != kube-proxy ] || netfilter_root "$root"
        install -D -t "$root/usr/local/bin" "$work/bin/$program"
        pack "$out" "$program" "registry.k8s.io/$program:$version" "$root"
    done
    echo "$version" >"$out/version"
}

build_pause() {
    local out=$1 root source
    find_go kubernetes
    (cd "$provisioning/go/kubernetes" && go mod download k8s.io/kubernetes)
    source=$(go_module_dir kubernetes k8s.io/kubernetes)/build/pause/linux/pause.c
    root=$(new_root pause)
    musl-gcc -Os -Wall -static -s -DVERSION="v$pause_image" -o "$root/pause" "$source"
    pack "$out" pause "registry.k8s.io/pause:$pause_image" "$root" --entrypoint /pause --user 65535:65535
    echo "$pause_image" >"$out/version"
}

build_coredns() {
    local out=$1 root
    [ "$(go_version_of coredns)" = "$coredns_image" ] || refuse "go/coredns does not pin $coredns_image"
    root=$(new_root coredns)
    go_build coredns "$root" "-X github.com/coredns/coredns/coremain.GitCommit=$coredns_image" github.com/coredns/coredns
    # It asks other name servers over TLS if it is told to.
    certificates "$root"
    pack "$out" coredns "registry.k8s.io/coredns/coredns:$coredns_image" "$root" --entrypoint /coredns
    echo "$coredns_image" >"$out/version"
}

build_cni_plugins() {
    local out=$1 version
    version=$(go_version_of cni-plugins)
    go_build cni-plugins "$work/bin" "-X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$version" \
        $cni_plugins/ipam/{dhcp,host-local,static} $cni_plugins/meta/{bandwidth,firewall,portmap,sbr,tuning,vrf} \
        $cni_plugins/main/{bridge,dummy,host-device,ipvlan,loopback,macvlan,ptp,tap,vlan}
    mkdir -p "$out/node/amd64"
    tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --mode=755 \
        --directory "$work/bin" . | gzip -9n >"$out/node/amd64/cni-plugins.tgz"
    echo "$version" >"$out/version"
}

build_crictl() {
    local out=$1 version
    version=$(go_version_of cri-tools)
    go_build cri-tools "$out/node/amd64" "-X sigs.k8s.io/cri-tools/pkg/version.Version=${version#v}" \
        sigs.k8s.io/cri-tools/cmd/crictl
    echo "$version" >"$out/version"
}

build_flannel() {
    local out=$1 version root plugin
    version=$(go_version_of flannel) plugin=$(go_version_of flannel-cni-plugin)
    root=$(new_root flannel)
    netfilter_root "$root"
    # Its UDP backend is C, which musl links statically; the kernel's headers are Debian's.
    CGO_ENABLED=1 CC="musl-gcc -idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu" go_tags=netgo,osusergo \
        go_build flannel "$work/bin" \
        "-X github.com/flannel-io/flannel/pkg/version.Version=$version -linkmode external -extldflags -static" \
        github.com/flannel-io/flannel
    install -D "$work/bin/flannel" "$root/opt/bin/flanneld"
    pack "$out" flannel "ghcr.io/flannel-io/flannel:$version" "$root" --entrypoint /opt/bin/flanneld
    mkdir -p "$out/manifests/cni"
    # The images it names are those that are made here.
    sed "s|\(flannel-io/flannel-cni-plugin\):.*|\1:$plugin|" \
        "$(go_module_dir flannel github.com/flannel-io/flannel)/Documentation/kube-flannel.yml" \
        >"$out/manifests/cni/flannel.yaml"
    echo "$version" >"$out/version"
}

# The plugin's own module is not on the proxy; this is the same program from when it was one of the usual plugins.
build_flannel_cni_plugin() {
    local out=$1 version root
    version=$(go_version_of flannel-cni-plugin)
    root=$(new_root flannel-cni-plugin)
    go_build flannel-cni-plugin "$root" \
        "-X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$version" $cni_plugins/meta/flannel
    # An init container copies it to the node.
    busybox "$root" sh cp
    pack "$out" flannel-cni-plugin "ghcr.io/flannel-io/flannel-cni-plugin:$version" "$root"
    echo "$version" >"$out/version"
}

build_kube_vip() {
    local out=$1 version root
    version=$(go_version_of kube-vip)
    root=$(new_root kube-vip)
    go_build kube-vip "$root" "-X main.Version=$version -X main.Build=metalgate" github.com/kube-vip/kube-vip
    certificates "$root"
    pack "$out" kube-vip "ghcr.io/kube-vip/kube-vip:$version" "$root" --entrypoint /kube-vip
    echo "$version" >"$out/version"
}
