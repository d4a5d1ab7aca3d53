#!/usr/bin/env bash
# Looks for known vulnerabilities: audit.sh MESSAGE COMMAND. Passes with NOT CHECKED where the command's output has MESSAGE, which it prints if
# it cannot reach its database: a change can be verified without a network.
set -uo pipefail
cd "$(dirname "$0")/.."
message=$1
shift
out=$("$@" 2>&1)
status=$?
echo "$out"
[[ $status != 0 && $out == *"$message"* ]] && { echo "NOT CHECKED: $* cannot reach its database of vulnerabilities."; exit 0; }
exit "$status"
