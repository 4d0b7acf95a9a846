#!/bin/sh
# inodes.sh: reads what dumpe2fs says of a file system and prints the numbers of the inodes that are in use.
set -eu
awk '
  /^Inodes per group:/ { size = $4 }
  /^Group [0-9]+:/ { group = $2 + 0 }
  /^ +Free inodes:/ {
    first = group * size + 1
    last = first + size - 1
    sub(/^ +Free inodes: */, "")
    count = split($0, ranges, /, */)
    for (i = 1; i <= count; i++) {
      split(ranges[i], ends, "-")
      for (; first < ends[1]; first++) print first
      first = (ends[2] ? ends[2] : ends[1]) + 1
    }
    for (; first <= last; first++) print first
  }'
