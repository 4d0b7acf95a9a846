#!/bin/sh
# token.sh FILE: prints the secret that joins nodes to the cluster; makes it, mode 0600, where the file does not exist.
set -eu
umask 077
if [ ! -s "$1" ]; then
  mkdir -p "$(dirname "$1")"
  head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$1.new"
  # The first of two callers wins; both print the same token.
  ln "$1.new" "$1" 2>/dev/null || true
  rm -f "$1.new"
fi
cat "$1"
