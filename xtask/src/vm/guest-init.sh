#!/bin/sh
# PID 1 of a guest: sets the machine up as a distribution would, runs the job, hands the results out, powers off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 RESULTS=/results
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
# No mount hides /tmp: the host's cache, which the peers lie in, may be below it.
mkdir -p /dev/pts /dev/shm /results /job
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t bpf bpf /sys/fs/bpf
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
# A group that enables controllers may hold no process itself, so this one leaves the root group.
mkdir /sys/fs/cgroup/init
echo $$ >/sys/fs/cgroup/init/cgroup.procs
hostname guest
ip link set lo up
stty -F /dev/ttyS1 raw -echo

tar -xf /dev/vdb -C / --no-same-owner
cd /job || poweroff -f
setsid sh /job/command </dev/null >/dev/ttyS1 2>&1
echo $? >/results/.exit
tar -cf /dev/vdc -C /results .
sync
busybox poweroff -f
