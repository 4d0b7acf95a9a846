#!/bin/sh
# What the container takes in which this runs, one line each: usage.sh [VOLUME…]
#   memory BYTES      in use, as Kubernetes counts its working set: all but the files that the kernel would drop first
#   processes NUMBER  those of pods too, which K3s starts in cgroups of their own
#   disk KIB          of each volume; files that go away meanwhile are no fault
set -eu
cd /sys/fs/cgroup
if [ -d memory ]; then cd memory; fi # version 1, where the cgroups below count in lines of their own
usage=$(cat memory.current 2>/dev/null || cat memory.usage_in_bytes)
inactive=$(sed -n 's/^total_inactive_file //p' memory.stat)
echo "memory $((usage - ${inactive:-$(sed -n 's/^inactive_file //p' memory.stat)}))"
# But for sh, find, cat and awk of this line itself.
find . -name cgroup.procs -exec cat {} + | awk 'END { print "processes", NR - 4 }'
for volume; do du -skx "$volume" 2>/dev/null | awk '{ print "disk", $1 }'; done
