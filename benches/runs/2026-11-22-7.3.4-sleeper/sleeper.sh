#!/bin/sh
# One that sleeps for 2 ms among eight spinning shells, under the kernel's own scheduler and under gthulhu in turn.
LOOPS=${1:-1500} ROUNDS=${2:-2}
for i in 1 2 3 4 5 6 7 8; do sh -c 'while :; do :; done' & done
sleep 20
measure() {
    before=$(cat /sys/kernel/sched_ext/state) ops=$(cat /sys/kernel/sched_ext/root/ops 2>/dev/null)
    cyclictest -t 1 -p 0 --policy=other -i 2000 -l "$LOOPS" -q -h 100000 >/tmp/hist 2>&1
    after=$(cat /sys/kernel/sched_ext/state)
    awk -v name="$1" -v state="$before $ops $after" '
        /^[0-9]/ { n[++k] = $2; us[k] = $1; all += $2 }
        /Max Latencies/ { max = $4 } /Histogram Overflows/ { over = $4 }
        END {
            all += over
            for (i = 1; i <= k; i++) {
                seen += n[i]
                if (!p50 && seen >= all * 0.5) p50 = us[i]
                if (!p90 && seen >= all * 0.9) p90 = us[i]
                if (!p99 && seen >= all * 0.99) p99 = us[i]
                if (!p999 && seen >= all * 0.999) p999 = us[i]
            }
            printf "sleeper,%s,%d,%d,%d,%d,%d,%d,%s\n", name, all, p50, p90, p99, p999, max, state
        }' /tmp/hist
}
echo "sleeper,scheduler,samples,p50_us,p90_us,p99_us,p99.9_us,max_us,state before; ops; state after"
for round in $(seq "$ROUNDS"); do
    measure eevdf
    gthulhu-daemon run --plugin gthulhu >/tmp/log 2>&1 &
    daemon=$!
    for i in $(seq 100); do gthulhu-daemon status --json 2>/dev/null | grep -q '"mode": *"normal"' && break; sleep 0.2; done
    measure gthulhu
    kill $daemon
    wait $daemon
done
