#!/bin/sh
# Process 1 of a lab guest: mounts what a Linux has, runs /lab/command with its output on the second serial
# port, reports the status behind the token of the kernel command line, powers off. See xtask/src/guest.rs.
export PATH=/bin HOME=/root TERM=dumb LANG=C.UTF-8 RUST_BACKTRACE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /dev/pts
mount -t devpts devpts /dev/pts
for dir in /dev/shm /tmp /run; do mount -t tmpfs -o mode=1777 tmpfs $dir; done
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in cpu cpuset memory pids; do
    echo +$controller >/sys/fs/cgroup/cgroup.subtree_control
done
ip link set lo up
hostname lab
chmod 755 /
ulimit -n 65536
echo 1 >/proc/sys/kernel/sysrq # The host asks a guest that hangs what it is doing.

token= want_dmesg=
for word in $(cat /proc/cmdline); do
    case $word in
    lab.token=*) token=${word#lab.token=} ;;
    lab.dmesg) want_dmesg=1 ;;
    lab.icount) export LAB_ICOUNT=1 ;;
    esac
done

# Held open, or the port forgets its settings; raw, so that no newline is doubled.
exec 3>/dev/ttyS1
stty -F /dev/ttyS1 115200 raw -echo
cd /root
setsid sh /lab/command </dev/null >&3 2>&1 3>&-
status=$?

# Both lines start with the token, which only the host and this script know.
if [ $status -ne 0 ] || [ "$want_dmesg" ]; then
    echo "$token dmesg" >&3
    dmesg | tail -n 80 >&3
fi
echo "$token exit $status" >&3
stty -F /dev/ttyS1 -echo # waits until all is out
poweroff -f
