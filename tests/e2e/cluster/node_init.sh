#!/bin/sh
# The first process of a node: in namespaces of its own for mounts, processes and the network, so that with its end the
# kernel takes away whatever the node has started, mounted or configured. It ends when its standard input does.
#
#   node_init.sh FOLDER PROGRAMS CNI
#
# FOLDER/run and FOLDER/var become /run and /var; what the node needs is in /run/programs, /run/cni and /run/node.
set -eu
folder=$1 programs=$2 cni=$3

mkdir -p "$folder/run/programs" "$folder/run/cni" "$folder/run/node" "$folder/run/lock" \
    "$folder/var/lib" "$folder/var/log" "$folder/var/tmp"
ln -s /run "$folder/var/run"
ln -s /run/lock "$folder/var/lock"
mount --make-rprivate /
mount --bind "$programs" "$folder/run/programs"
mount --bind "$cni" "$folder/run/cni"
mount --rbind "$folder/run" /run
mount --bind "$folder/var" /var
mount -t proc proc /proc

# A kubelet sets these for the whole machine, or refuses to start where it may not. Here it finds them as it wants them.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=/run/node/$(echo "${setting%=*}" | tr / -)
    echo "${setting#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${setting%=*}"
done

ip link set lo up
echo ready
# The shell waits for this, and meanwhile for every process that was left to it.
cat >/dev/null
