#!/bin/sh
# The usage of the container in which this runs, one line each: usage.sh [VOLUME…]
#   memory BYTES      working set as in Kubernetes: without the file cache that the kernel would drop first
#   processes NUMBER  including those of pods, which K3s starts in separate cgroups
#   disk KIB          of each volume; ignores files that are deleted meanwhile
set -eu
cd /sys/fs/cgroup
if [ -d memory ]; then cd memory; fi # version 1, where the cgroups below count in lines of their own
usage=$(cat memory.current 2>/dev/null || cat memory.usage_in_bytes)
inactive=$(sed -n 's/^total_inactive_file //p' memory.stat)
echo "memory $((usage - ${inactive:-$(sed -n 's/^inactive_file //p' memory.stat)}))"
# Not counting this line's own sh, find, cat and awk.
find . -name cgroup.procs -exec cat {} + | awk 'END { print "processes", NR - 4 }'
for volume; do du -skx "$volume" 2>/dev/null | awk '{ print "disk", $1 }'; done
