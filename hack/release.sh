#!/usr/bin/env bash
# Gathers the files of a release in dist/release, from what `make release` has built: release.sh VERSION REGISTRY. The manifests and the
# chart name the images REGISTRY/controller, REGISTRY/agent and REGISTRY/observer.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
registry=$2
out=dist/release
[[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+ ]] || { echo "release.sh: the version is $version, want one like v0.1.0" >&2; exit 1; }
rm -rf "$out" dist/render
mkdir -p "$out" dist/render

# archive DIRECTORY NAME packs what is there under the name, into the same bytes each time.
archive() {
	tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w -C "$1" -c "$2" | gzip -n
}

# Manifests, with the images of this version: file=kustomization.
for pair in install=config/default install-audit=config/overlays/audit install-strict=config/overlays/strict \
	install-observer=config/overlays/observer install-eks=config/overlays/eks install-eks-audit=config/overlays/eks-audit crds=config/crd cleanup=config/cleanup; do
	cat >dist/render/kustomization.yaml <<-END
		resources: [../../${pair#*=}]
		images:
		- {name: kidoban.dev/controller, newName: "$registry/controller", newTag: "$version"}
		- {name: kidoban.dev/agent, newName: "$registry/agent", newTag: "$version"}
		- {name: kidoban.dev/observer, newName: "$registry/observer", newTag: "$version"}
	END
	go tool -modfile=hack/go.mod kustomize build dist/render >"$out/${pair%%=*}.yaml"
done

# The chart, as Helm packs it.
cp -r charts/kidoban dist/render/kidoban
sed -i "s|^version: .*|version: ${version#v}|; s|^appVersion: .*|appVersion: $version|" dist/render/kidoban/Chart.yaml
sed -i "s|^  registry: .*|  registry: $registry|" dist/render/kidoban/values.yaml
archive dist/render kidoban >"$out/kidoban-${version#v}.tgz"

# The plugin: an archive for each platform, the same bytes each time, and its manifest for krew.
krew=$(sed "s/\bVERSION\b/$version/g" hack/krew/kidoban.yaml)
for dir in dist/plugin/*/*; do
	platform=${dir#dist/plugin/}
	file=kubectl-kidoban_${platform/\//_}.tar.gz
	cp LICENSE "$dir/"
	archive "$dir" . >"$out/$file"
	variable=SHA256_$(tr a-z/ A-Z_ <<<"$platform")
	sum=$(sha256sum "$out/$file" | cut -d' ' -f1)
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
