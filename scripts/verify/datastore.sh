#!/bin/sh
# Runs as root on a server: counts, in the file of its datastore, the records of Secrets that are encrypted and those that
# anyone with the file can read. No name and no value leaves the server. SQLite stores a record's value within some bytes of
# its key, and so does etcd; recent writes are in SQLite's log, and deleted records may remain in either.
cd "${1:-/var/lib/rancher/k3s/server/db}" 2>/dev/null || exit 0
cat state.db state.db-wal etcd/member/snap/db 2>/dev/null | tr '/\000\n' '\n\001\001' | LC_ALL=C awk '
  at == 3 {
    match($0, /^[-a-z0-9.]+/)
    # The name of a Secret that is new is followed by its value, whose first letters look like more of the name.
    value = substr($0, 1, RLENGTH + 40)
    if (index(value, "k8s:enc:")) encrypted++
    else if (index(value, "k8s\001")) readable++
  }
  { at = $0 == "registry" ? 1 : at == 1 && $0 == "secrets" ? 2 : at == 2 ? 3 : 0 }
  END { printf "{\"encrypted\":%d,\"readable\":%d}\n", encrypted, readable }'
