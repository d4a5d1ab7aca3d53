#!/usr/bin/env bash
# Runs benchmarks of packets on this tree and on an older commit in turn, and prints the medians and their ratio:
# bench-beside.sh OLD ROUNDS BENCH BENCHTIME [BENCH BENCHTIME …]. Both run on the same machine within seconds, so that its load changes little between them.
# A row that only one of the two has is left out.
set -euo pipefail
cd "$(dirname "$0")/.."
old=$1 rounds=$2
shift 2
work=$(mktemp -d)
trap 'git worktree remove --force "$work/old" 2>/dev/null || true; rm -rf "$work"' EXIT

git worktree add --quiet --detach "$work/old" "$old"
go -C "$work/old" test -c -o "$work/old.test" ./internal/dataplane
go test -c -o "$work/new.test" ./internal/dataplane

for ((i = 0; i < rounds; i++)); do
	# Which of the two comes first alternates too.
	builds=(old new)
	((i % 2)) && builds=(new old)
	for build in "${builds[@]}"; do
		for ((j = 1; j < $#; j += 2)); do
			k=$((j + 1))
			(cd "$work" && "./$build.test" -test.run='^$' -test.bench="${!j}" -test.benchtime="${!k}") >>"$work/$build.txt"
		done
	done
	echo "round $((i + 1)) of $rounds" >&2
done

# A line: Benchmark…-2  N  1.5 over-empty-ns/packet  60 ns/packet. The time of a packet decides, not that over an empty program, whose ratio
# is one of two small numbers.
awk '
	function median(list, n,   i, j, v) {
		for (i = 2; i <= n; i++) {
			v = list[i]
			for (j = i - 1; j > 0 && list[j] > v; j--) list[j + 1] = list[j]
			list[j + 1] = v
		}
		return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
	}
	function middle(build, row,   i, n, list) {
		n = count[build, row]
		for (i = 1; i <= n; i++) list[i] = value[build, row, i]
		return median(list, n)
	}
	/^Benchmark/ {
		build = FILENAME ~ /old.txt$/ ? "old" : "new"
		for (i = 3; i < NF; i += 2)
			if ($(i + 1) ~ /^(over-empty-)?ns\// && $(i + 1) != "ns/op") {
				row = $1 " " $(i + 1)
				sub(/-[0-9]+ /, " ", row)
				if (!((row) in seen)) { seen[row] = 1; order[++rows] = row }
				value[build, row, ++count[build, row]] = $i
			}
	}
	END {
		printf "| row | unit | old | new | new ÷ old | rounds |\n|---|---|---:|---:|---:|---:|\n"
		for (r = 1; r <= rows; r++) {
			row = order[r]
			if (!count["old", row] || !count["new", row]) continue
			o = middle("old", row); n = middle("new", row)
			split(row, part, " ")
			printf "| %s | %s | %.1f | %.1f | %s | %d |\n", part[1], part[2], o, n, o ? sprintf("%.2f", n / o) : "–", count["new", row]
		}
	}' "$work/old.txt" "$work/new.txt"
