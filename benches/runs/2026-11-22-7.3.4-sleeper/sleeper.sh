#!/bin/sh
# One that sleeps for 2 ms among eight spinning shells, under the kernel's own scheduler and under gthulhu in turn.
# `one`: all in one session; `each`: each shell in its own, which the kernel's own scheduler gives a group of its own.
LOOPS=${1:-1500} ROUNDS=${2:-2} SESSIONS=${3:-one}
[ "$SESSIONS" = each ] && own=setsid
for i in 1 2 3 4 5 6 7 8; do $own sh -c 'while :; do :; done' & done
echo "autogroups $(cat /proc/sys/kernel/sched_autogroup_enabled 2>/dev/null), sessions $SESSIONS"
sleep 20
measure() {
    before=$(cat /sys/kernel/sched_ext/state) ops=$(cat /sys/kernel/sched_ext/root/ops 2>/dev/null)
    cyclictest -t 1 -p 0 --policy=other -i 2000 -l "$LOOPS" -q -h 100000 >/tmp/out 2>&1
    after=$(cat /sys/kernel/sched_ext/state)
    # To this awk a number that begins with 0 is octal.
    sed -n 's/^0*\([0-9][0-9]*\) 0*\([1-9][0-9]*\)$/\1 \2/p' /tmp/out >/tmp/hist
    over=$(sed -n 's/^# Histogram Overflows: 0*\([0-9]\)/\1/p' /tmp/out) max=$(sed -n 's/^# Max Latencies: 0*//p' /tmp/out)
    sed "s/^/hist,$1,$2,/; s/ /,/" /tmp/hist
    awk -v name="$1,$2" -v state="$before,$ops,$after" -v over="${over:-0}" -v max="$max" '
        { n[NR] = $2; us[NR] = $1; all += $2 }
        END {
            all += over
            split("0.5 0.9 0.99 0.999", part)
            for (i = 1; i <= NR; i++) {
                seen += n[i]
                for (p = 1; p <= 4; p++) if (at[p] == "" && seen >= all * part[p]) at[p] = us[i]
            }
            printf "sleeper,%s,%d,%s,%s,%s,%s,%s,%s\n", name, all, at[1], at[2], at[3], at[4], max, state
        }' /tmp/hist
}
echo "sleeper,scheduler,round,samples,p50_us,p90_us,p99_us,p99.9_us,max_us,state before,ops,state after"
for round in $(seq "$ROUNDS"); do
    measure eevdf $round
    gthulhu-daemon run --plugin gthulhu >/tmp/log 2>&1 &
    daemon=$!
    for i in $(seq 100); do gthulhu-daemon status 2>/dev/null | grep -q 'mode normal' && break; sleep 0.2; done
    measure gthulhu $round
    kill $daemon
    wait $daemon
done
