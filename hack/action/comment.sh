#!/usr/bin/env bash
# Prints, as Markdown, what the manifests NEW change in comparison with OLD, and likely mistakes in NEW:
# comment.sh KUBECTL-KIDOBAN OLD NEW [FLAG...]. Flags are those that diff and lint share, as --pod-cidr=10.0.0.0/8.
# The exit code is 1 where lint finds something of the severity FAIL_ON (error), and 2 where the manifests cannot be read.
set -uo pipefail
program=$1 old=$2 new=$3
shift 3

# block prints a command's output as code. Longer fences than any in the output keep it there.
block() {
	local title=$1 status fence='```' out
	shift
	out=$("$@" 2>&1)
	status=$?
	while [[ $out == *"$fence"* ]]; do fence+='`'; done
	printf '**%s**\n\n%s\n%s\n%s\n\n' "$title" "$fence" "${out:0:28000}" "$fence"
	return "$status"
}

echo '<!-- kidoban -->' # by which the action finds its comment again
echo '### Network policies'
echo
if [[ -e $old ]]; then
	block 'What this pull request changes' "$program" diff --base "$old" -f "$new" "$@"
	diff=$?
else
	echo "There are no manifests in the base branch to compare with."
	echo
	diff=0
fi
block 'Likely mistakes' "$program" lint --fail-on "${FAIL_ON:-error}" -f "$new" "$@"
lint=$?
((diff > 1 || lint > 1)) && exit 2
exit "$lint"
