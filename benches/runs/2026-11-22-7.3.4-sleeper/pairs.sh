#!/bin/sh
# Eight hogs and one that sleeps for 2 ms, for SECS seconds under the kernel's own scheduler and under gthulhu in turn.
SECS=${1:-4} PAIRS=${2:-10}
state() { cat /sys/kernel/sched_ext/state; }
measure() {
    cyclictest -t 1 -p 0 --policy=other -i 2000 -D "$SECS" -q >/tmp/cyclic 2>&1 &
    cyclic=$! before=$(state)
    figures=$(lab-guest hogs 8 --secs "$SECS")
    wait $cyclic
    rate=$(echo "$figures" | sed 's/.*"per_second":\([0-9.]*\).*/\1/')
    each=$(echo "$figures" | sed 's/.*"per_hog":\[\([0-9,]*\)\].*/\1/; s/,/ /g')
    echo "pair,$2,$1,$rate,$each,$before,$(state),$(sed -n 's/.*Avg: *\([0-9]*\) Max: *\([0-9]*\).*/\1,\2/p' /tmp/cyclic)"
}
echo "pair,number,scheduler,units per second,units of each hog,state before,state after,sleeper avg us,sleeper max us"
for pair in $(seq "$PAIRS"); do
    measure eevdf $pair
    gthulhu-daemon run --plugin gthulhu >/tmp/log 2>&1 &
    daemon=$!
    for i in $(seq 100); do gthulhu-daemon status 2>/dev/null | grep -q 'mode normal' && break; sleep 0.2; done
    measure gthulhu $pair
    kill $daemon
    wait $daemon
done
