# shellcheck shell=bash
# Read by scripts that are PID 1 of fresh PID, mount and network namespaces: nothing of them can stay behind.

# What is written below /run, /var and /etc is in memory, and seen here alone.
private_files() {
    local directory
    mount -t tmpfs private /run
    for directory in var etc; do
        mkdir "/run/$directory" "/run/$directory.work"
        mount -t overlay -o "lowerdir=/$directory,upperdir=/run/$directory,workdir=/run/$directory.work" private "/$directory"
    done
}
