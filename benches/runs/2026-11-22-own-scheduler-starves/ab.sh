#!/bin/sh
# In turn without and with gthulhu: the longest time without a new process, under forks and pipes.
# The state is looked at before and after each ten seconds.
state() { cat /sys/kernel/sched_ext/state; }
stress-ng --fork 2 --temp-path /tmp -t 200 >/dev/null 2>&1 &
lab-guest hop --periodic 0 --pairs 4 --secs 200 >/dev/null 2>&1 &
for i in 1 2 3; do
  before=$(state); beat=$(lab-guest beat --secs 10); echo "$before $(state) $beat"
  gthulhu-daemon run >/dev/null 2>&1 & daemon=$!
  until [ "$(state)" = enabled ]; do sleep 1; done
  sleep 2
  before=$(state); beat=$(lab-guest beat --secs 10); echo "$before $(state) $beat"
  kill $daemon; wait $daemon
done
