# Makes $FOLDER/root.ext4 from $BASE, the init in $WORK, the files named in $WORK/copied, each at its own path, and a link
# to the program $NODE.
PATH=$PATH:/usr/sbin:/sbin
root=$WORK/root
mkdir "$root"
trap 'rm -rf "$root"' EXIT
tar -xf "$BASE" -C "$root"
# What Debian installed wins: the host's libraries are of the same suite, but the guest's loader is the guest's.
# Paths that pass through links (such as /lib) must land behind them.
while read -r path || [ -n "$path" ]; do
    real=$(realpath -e "$(dirname "$path")")/$(basename "$path")
    for one in "$real" "$(realpath -e "$path")"; do
        tar -cf - -C / --exclude='python3.*/test' "${one#/}" | tar -xf - -C "$root" --skip-old-files
    done
done <"$WORK/copied"
if [ -n "$NODE" ] && [ "$NODE" != /usr/bin/node ]; then
    ln -s "$NODE" "$root/usr/local/bin/node"
fi
install -m 755 "$WORK/guest-init" "$root/guest-init"
printf '127.0.0.1 localhost guest\n::1 localhost\n' >"$root/etc/hosts"
printf 'nameserver 127.0.0.1\n' >"$root/etc/resolv.conf"
size=$(($(du -sm --apparent-size "$root" | cut -f1) * 14 / 10 + 700))
mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$root" "$FOLDER/root.ext4" "${size}M"
chown "$OWNER" "$FOLDER/root.ext4"
