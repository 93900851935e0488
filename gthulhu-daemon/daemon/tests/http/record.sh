#!/bin/sh
# Records what a daemon that schedules exposes, for tests/http/prometheus.rs. In the repository's root, with the daemon
# built for release:
#   cargo xtask lab run --with gthulhu-daemon/daemon/tests/http/record.sh:/record.sh -- sh /record.sh > all.txt
# and then the lines behind each '#### scheduler-N.txt' into that file.
gthulhu-daemon run --set daemon.runtime_config_path=/var/lib/record/runtime.json >/dev/null 2>&1 &
daemon=$!
ask() { wget -q -O - "$@"; }
until ask http://127.0.0.1:9090/metrics | grep -q 'mode="normal"} 1'; do sleep 0.2; done
ask --header 'Content-Type: application/json' --post-data '{"configVersion":"recorded","builtinIdle":true}' \
    'http://127.0.0.1:18080/api/v1/runtime-config?reattach=true' >/dev/null
until ask http://127.0.0.1:9090/metrics | grep -q 'mode="normal"} 1'; do sleep 0.2; done
for n in 1 2; do
    i=0
    while [ $i -lt 300 ]; do i=$((i + 1)); (:) | cat; done
    sleep 1
    echo "#### scheduler-$n.txt"
    ask http://127.0.0.1:9090/metrics
done
echo "#### end"
kill $daemon
wait $daemon
