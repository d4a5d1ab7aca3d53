#!/usr/bin/env bash
# Usage: hack/apt.sh WHAT=PACKAGE...
# Installs Debian's PACKAGE where WHAT, a program or the absolute path of a file, is missing. Does nothing where all is there.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

missing=()
for pair in "$@"; do
	what=${pair%%=*}
	if [[ $what == /* ]]; then
		[[ -e $what ]] && continue
	else
		command -v "$what" >/dev/null && continue
	fi
	missing+=("${pair#*=}")
done
((${#missing[@]})) || exit 0

command=(apt-get install --yes --no-install-recommends "${missing[@]}")
if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
	echo "This needs packages that are not installed: ${missing[*]}" >&2
	echo "As root, on Debian: ${command[*]}" >&2
	exit 1
fi
exec {turn}>/var/lock/kidoban-apt.lock
flock "$turn" # apt does not wait for another one that reads its lists
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
"${command[@]}" -qq >/dev/null
