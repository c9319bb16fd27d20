#!/bin/sh
# The guest's first process: a shell on the console, or one command for the host; then power off.
export PATH=/bin HOME=/root PS1='\h:\w\$ '
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
echo ring3 >/proc/sys/kernel/hostname
cd /root
if [ -f /ring3-exec ]; then
	# The second serial port carries nothing but the command's output, byte for byte.
	exec 3<>/dev/ttyS1
	stty 115200 raw -echo <&3
	sh /ring3-exec </dev/null >&3 2>&1 3>&-
	status=$?
	# Nothing may write behind the status; and only the port's last close waits for its output.
	kill -9 -1
	printf '\0ring3-exit:%d\n' $status >&3
	exec 3>&-
else
	# Input from a file comes faster than a shell reads: RTS holds it back.
	stty crtscts
	[ "$LINES" ] && stty rows "$LINES" cols "$COLUMNS"
	unset LINES COLUMNS
	setsid cttyhack sh
fi
# Not even "reboot: Power down" shall follow the last output.
echo 0 >/proc/sys/kernel/printk
poweroff -f
