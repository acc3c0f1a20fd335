#!/bin/busybox sh
# The init of a lab guest. It loads the network drivers, then serves commands on the second serial port:
#   host: ID COMMAND...            guest: @begin ID, the output, @end ID STATUS
# and a root shell on the first one (console).
export PATH=/opt/bin:/sbin:/bin:/usr/sbin:/usr/bin HOME=/root TERM=linux
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /var/run /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /tmp
hostname "$(sed -n 's/.*fabnic.name=\([^ ]*\).*/\1/p' /proc/cmdline)"
ip link set lo up
modprobe virtio_pci 2>/dev/null
modprobe virtio_net

serve() {
    stty -F /dev/ttyS1 raw -echo
    exec 3<>/dev/ttyS1
    echo "@ready $(uname -r)" >&3
    while read -r id line <&3; do
        (eval "$line") </dev/null >"/tmp/out.$id" 2>&1 3>&-
        status=$?
        { echo "@begin $id"; cat "/tmp/out.$id"; echo; echo "@end $id $status"; } >&3
        rm -f "/tmp/out.$id"
    done
}
while :; do serve; done &
while :; do
    setsid cttyhack /bin/sh </dev/ttyS0 >/dev/ttyS0 2>&1
    sleep 1
done
