# kubelet refuses to start beside swap space.
check() {
    [ "$(wc -l </proc/swaps)" -le 1 ] && ! grep -Eq '^[^#]+[[:space:]]swap[[:space:]]' /etc/fstab
}
apply() {
    swapoff -a
    sed -i -E 's/^([^#]+[[:space:]]swap[[:space:]].*)$/# \1/' /etc/fstab
}
