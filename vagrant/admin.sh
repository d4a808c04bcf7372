#!/bin/sh
# Run by Vagrant on the admin machine with its address on the provisioning network: what `metalgate create cluster` needs there.
set -eu
install -m 0755 /tmp/metalgate /usr/local/bin/metalgate
install -d -m 0700 /root/rack
install -m 0600 /tmp/cluster.yaml /tmp/hardware.csv /root/rack
rm /tmp/metalgate /tmp/cluster.yaml /tmp/hardware.csv
interface=$(ip -4 -oneline address | awk -v "address=$1/" 'index($4, address) == 1 {print $2}')
sed -i "s/^    interface: .*/    interface: $interface/" /root/rack/cluster.yaml
