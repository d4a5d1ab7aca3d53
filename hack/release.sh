#!/usr/bin/env bash
# Gathers the files of a release in dist/release, from what `make release` has built: release.sh VERSION.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
out=dist/release
rm -rf "$out" dist/render
mkdir -p "$out" dist/render

# Manifests, with the images of this version: file=kustomization.
for pair in install=config/default install-audit=config/overlays/audit install-strict=config/overlays/strict \
	install-eks=config/overlays/eks install-eks-audit=config/overlays/eks-audit crds=config/crd cleanup=config/cleanup; do
	cat >dist/render/kustomization.yaml <<-END
		resources: [../../${pair#*=}]
		images:
		- {name: kidoban.dev/controller, newTag: "$version"}
		- {name: kidoban.dev/agent, newTag: "$version"}
	END
	go tool -modfile=hack/go.mod kustomize build dist/render >"$out/${pair%%=*}.yaml"
done

# The plugin: an archive for each platform, the same bytes each time, and its manifest for krew.
krew=$(sed "s/\bVERSION\b/$version/g" hack/krew/kidoban.yaml)
for dir in dist/plugin/*/*; do
	platform=${dir#dist/plugin/}
	archive=kubectl-kidoban_${platform/\//_}.tar.gz
	cp LICENSE "$dir/"
	tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$dir" -c . | gzip -n >"$out/$archive"
	variable=SHA256_$(tr a-z/ A-Z_ <<<"$platform")
	sum=$(sha256sum "$out/$archive" | cut -d' ' -f1)
	krew=${krew//$variable/$sum}
done
if grep -q SHA256_ <<<"$krew"; then
	echo "release.sh: hack/krew/kidoban.yaml names a platform that was not built" >&2
	exit 1
fi
echo "$krew" >"$out/krew-kidoban.yaml"

# Bills of materials of the images.
for file in dist/{amd64,arm64}/*.cdx.json; do
	arch=$(basename "$(dirname "$file")")
	cp "$file" "$out/$(basename "$file" .cdx.json)_linux_$arch.cdx.json"
done
(cd "$out" && sha256sum -- * >SHA256SUMS)
