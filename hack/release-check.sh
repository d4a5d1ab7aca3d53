#!/usr/bin/env bash
# Builds a release as the workflow does, as far as that goes without a registry, and a second time from a clone at another path:
# release-check.sh VERSION REGISTRY. Fails where a file is missing, or where the two differ in a byte. Then it pushes the release to a registry
# that a test starts on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
registry=$2
clone=$(mktemp -d)
trap 'rm -rf "$clone"' EXIT

[[ -z $(git status --porcelain) ]] || { echo 'release-check.sh: commit first: the second build is of a clone' >&2; exit 1; }
git clone --quiet --no-hardlinks . "$clone"
for dir in . "$clone"; do
	make --no-print-directory -C "$dir" release VERSION="$version" REGISTRY="$registry"
	(cd "$dir/dist/release" && sha256sum --quiet --check SHA256SUMS)
	(cd "$dir/dist" && sha256sum {amd64,arm64}/{controller,agent,observer}.tar >images.sha256)
done
diff dist/release/SHA256SUMS "$clone/dist/release/SHA256SUMS"
diff dist/images.sha256 "$clone/dist/images.sha256"

for file in install.yaml install-audit.yaml install-strict.yaml install-observer.yaml install-eks.yaml install-eks-audit.yaml crds.yaml cleanup.yaml krew-kidoban.yaml \
	"kidoban-${version#v}.tgz" {controller,agent,observer}_linux_{amd64,arm64}.cdx.json kubectl-kidoban_{linux,darwin}_{amd64,arm64}.tar.gz kubectl-kidoban_windows_amd64.tar.gz; do
	[[ -s dist/release/$file ]] || { echo "release-check.sh: dist/release/$file is missing" >&2; exit 1; }
done
for image in controller agent; do
	grep -q "image: $registry/$image:$version\$" dist/release/install.yaml || { echo "release-check.sh: install.yaml does not name $registry/$image:$version" >&2; exit 1; }
done

grep -q "image: $registry/observer:$version\$" dist/release/install-observer.yaml || { echo "release-check.sh: install-observer.yaml does not name $registry/observer:$version" >&2; exit 1; }

# The binaries for this machine start, and print the release's version: those in the images, and the plugin as users unpack it.
arch=$(go env GOARCH)
started=$(dist/"$arch"/controller --version; dist/"$arch"/agent --version; dist/"$arch"/observer --version
	tar -xzf "dist/release/kubectl-kidoban_linux_$arch.tar.gz" -C "$clone" ./kubectl-kidoban && "$clone/kubectl-kidoban" version --client)
[[ $(grep -cF "$version" <<<"$started") == 4 ]] || { echo "release-check.sh: the binaries do not print $version:"$'\n'"$started" >&2; exit 1; }

# Users build and push it with a registry of their own: in the clone, whose files are compared by now.
VERSION=$version go -C "$clone/hack/image" test -count=1 -tags=release -run='^TestRelease$' .

cat dist/images.sha256 dist/release/SHA256SUMS
echo 'Both builds are the same.'
