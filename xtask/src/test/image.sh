# In a guest: the image by runc, then a client and a server outside of the container. $PEERS holds the programs.
python=$PEERS/py-2.3.0/bin/python
metrics=http://127.0.0.1:9464

finish() {
    echo "--- the container's log"
    cat /job/container.log
    echo "test result: $1"
    runc kill observer TERM
    exit "$2"
}

runc run --detach --bundle /job/bundle observer >/job/container.log 2>&1 </dev/null || finish "FAILED. 0 passed; 1 failed" 1
tries=0
until curl --silent --fail --output /dev/null $metrics/health/ready; do
    tries=$((tries + 1))
    [ $tries -gt 120 ] && finish "FAILED. 0 passed; 1 failed (never ready)" 1
    sleep 0.5
done
"$python" "$PEERS/python/client.py" --scenario calls --calls 5 --truth /results/truth --transport stdio -- \
    "$python" "$PEERS/python/server.py" --transport stdio
sleep 2
curl --silent $metrics/metrics >/results/metrics
grep '^mcp_calls_total' /results/metrics
# Five calls of the tool, whatever else the session asked.
if grep '^mcp_calls_total' /results/metrics | grep 'operation="echo"' | grep -q ' 5$'; then
    finish "ok. 1 passed; 0 failed" 0
fi
finish "FAILED. 0 passed; 1 failed (calls not seen)" 1
