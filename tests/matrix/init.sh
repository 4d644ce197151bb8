#!/bin/sh
# PID 1 of the guest: mounts what an engine needs, starts it, runs the tests, and switches the machine off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
export PYTHONPATH=/matrix/site:/matrix/repository PYTHONDONTWRITEBYTECODE=1
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mountpoint -q /run || mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/init && echo 1 > /sys/fs/cgroup/init/cgroup.procs
echo '+cpu +cpuset +io +memory +pids' > /sys/fs/cgroup/cgroup.subtree_control
ip link set lo up
echo matrix > /proc/sys/kernel/hostname
modprobe -a overlay virtio_rng
# Swap, so that a sandbox that could use it would.
fallocate -l 512M /swap && chmod 600 /swap && mkswap -q /swap && swapon /swap
dockerd --bridge=none --iptables=false --ip6tables=false --exec-opt native.cgroupdriver=cgroupfs >/var/log/docker.log 2>&1 &
until docker info >/dev/null 2>&1; do sleep 1; done
echo "MATRIX-STEP the engine answers after $(cut -d. -f1 /proc/uptime) s"
docker load -q -i /matrix/image.tar && rm /matrix/image.tar
echo "MATRIX-STEP the image is loaded after $(cut -d. -f1 /proc/uptime) s"
docker info 2>&1 | sed 's/^/MATRIX-INFO /'
cd /matrix/repository && python3 -m tests.matrix.inside
tail -n 40 /var/log/docker.log
sync
python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321fedc)'
