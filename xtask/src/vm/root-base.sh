# Makes $FOLDER/root.tar: a small Debian $SUITE from $ARCHIVE with $PACKAGES.
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
PATH=$PATH:/usr/sbin:/sbin
debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$root" "$ARCHIVE"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/* \
    "$root"/usr/share/locale/* "$root"/dev/*
tar -cf "$FOLDER/root.tar" -C "$root" .
chown "$OWNER" "$FOLDER/root.tar"
