#!/bin/sh
# First program of a guest: finds the root disk and hands over to it.
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
    $bb insmod "$module" || echo "could not load $module"
done
tries=0
until [ -b /dev/vdc ]; do
    tries=$((tries + 1))
    [ $tries -gt 100 ] && echo "no disks" && $bb poweroff -f
    $bb sleep 0.1
done
$bb mount -t ext4 /dev/vda /root
$bb umount /dev /sys /proc
exec $bb switch_root /root /guest-init
