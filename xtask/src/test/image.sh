# In a guest: the image by runc, then clients and servers outside of its container. $PEERS holds the SDKs' programs, $PORT is
# where the server in the other container listens.
certificate=/job/tls.cert.pem
python=$PEERS/py-2.3.0/bin/python
metrics=http://127.0.0.1:9464
passed=0
failed=0

# check WHAT COMMAND…: one test.
check() {
    what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "test $what ... ok"
    else
        failed=$((failed + 1))
        echo "test $what ... FAILED"
    fi
}

ready() {
    tries=0
    until curl --silent --fail --output /dev/null $metrics/health/ready; do
        tries=$((tries + 1))
        [ $tries -gt 120 ] && return 1
        sleep 0.5
    done
}

# seen CAPABILITY NUMBER: as many calls of the tool `echo` were counted for a server, however its callers are named.
seen() {
    tries=0
    until curl --silent $metrics/metrics | grep '^mcp_calls_total' | grep "capability=\"$1\"" | grep 'operation="echo"' |
        grep 'outcome="ok"' | awk -v wanted="$2" '{ sum += $NF } END { exit sum != wanted }'; do
        tries=$((tries + 1))
        [ $tries -gt 20 ] && return 1
        sleep 0.5
    done
}

inside() {
    runc exec neighbour /e2e tiny-client --truth "/tmp/$1" --calls "$@"
}

# layered NAME COMMAND…: starts a container whose root file system is a layer over one that all such containers share: the node's.
layered() {
    folder=/run/layers/$1
    name=$1
    shift
    mkdir -p "$folder/upper" "$folder/work" "$folder/rootfs"
    echo "exec env $*" >"$folder/upper/command"
    mount -t overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" overlay "$folder/rootfs" &&
        cp /job/bundles/layered/config.json "$folder/" &&
        runc run --detach --bundle "$folder" "$name" >"/job/$name.log" 2>&1 </dev/null
}

says() {
    tries=0
    until grep --quiet "$2" "/job/$1.log"; do
        tries=$((tries + 1))
        [ $tries -gt 120 ] && return 1
        sleep 0.5
    done
}

runc run --detach --bundle /job/bundles/observer observer >/job/observer.log 2>&1 </dev/null
check "the container is ready" ready
runc run --detach --bundle /job/bundles/neighbour neighbour >/job/neighbour.log 2>&1 </dev/null
sleep 1
check "a client and a server in another container, on pipes" inside 7
check "the same over HTTP" inside 9 --port "$PORT"
check "all calls of the other container are seen" seen tiny 16
"$python" "$PEERS/python/client.py" --scenario calls --calls 5 --truth /results/truth --transport stdio -- \
    "$python" "$PEERS/python/server.py" --transport stdio
check "all calls outside of containers are seen" seen py-peer 5
/job/bundles/neighbour/rootfs/e2e certificate /job/tls.pem
layered served "$python" "$PEERS/python/server.py" --transport http --port 8443 --cert "$certificate" --key /job/tls.key.pem
check "a server with TLS in a container on a layer" says served ready
layered calling SSL_CERT_FILE="$certificate" "$python" "$PEERS/python/client.py" --scenario calls --calls 6 --truth /truth \
    --transport http --url https://127.0.0.1:8443/mcp
check "calls through TLS from another container on the same layer are seen, each once" seen py-peer 11

curl --silent $metrics/metrics >/results/metrics
cp /job/*.log /results
runc kill observer TERM
runc kill neighbour KILL
runc kill served KILL
if [ $failed -gt 0 ]; then
    grep '^mcp_calls_total' /results/metrics
    echo "--- the observer's log"
    grep -v '^{' /job/observer.log | tail -n 20
    echo "--- the other container's log"
    tail -n 20 /job/neighbour.log
    echo "--- the logs of those on a layer"
    tail -n 20 /job/served.log /job/calling.log
fi
echo "test result: $passed passed; $failed failed"
[ $failed -eq 0 ]
