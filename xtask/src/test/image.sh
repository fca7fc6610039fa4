# In a guest: the image by runc, then clients and servers outside of its container. $PEERS holds the SDKs' programs, $PORT is
# where the server in the other container listens.
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

curl --silent $metrics/metrics >/results/metrics
cp /job/*.log /results
runc kill observer TERM
runc kill neighbour KILL
if [ $failed -gt 0 ]; then
    grep '^mcp_calls_total' /results/metrics
    echo "--- the observer's log"
    grep -v '^{' /job/observer.log | tail -n 20
    echo "--- the other container's log"
    tail -n 20 /job/neighbour.log
fi
echo "test result: $passed passed; $failed failed"
[ $failed -eq 0 ]
