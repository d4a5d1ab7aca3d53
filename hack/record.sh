#!/usr/bin/env bash
# Records `kubectl kidoban lab` with the shop as docs/lab.svg. Needs root, as the lab does. A test of internal/cli/lab compares the picture with
# what the lab prints.
set -euo pipefail
cd "$(dirname "$0")/.."
CGO_ENABLED=0 go build -o bin/kubectl-kidoban ./cmd/kubectl-kidoban
bin/kubectl-kidoban lab -f examples/shop -f examples/shop/policies 2>&1 >dist/lab.txt | sed 's/ in [0-9.]* s:/:/' >dist/lab.err
cat dist/lab.txt dist/lab.err | go -C hack/docs run ./recording 'sudo kubectl-kidoban lab -f examples/shop -f examples/shop/policies' >docs/lab.svg
