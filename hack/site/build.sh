#!/usr/bin/env bash
# Usage: hack/site/build.sh VERSION
# Builds dist/site/VERSION from docs/. Other versions in dist/site stay, and all of them are listed in dist/site/versions.json. VERSION is
# a tag such as v0.1.0, or main. SITE_ROOT is the path of the site on its server (/).
set -euo pipefail
cd "$(dirname "$0")/../.."

version=${1:?give a version}
[[ $version =~ ^[A-Za-z0-9._-]+$ ]] || { echo "$version: a version has letters, digits, dots, hyphens and underscores only" >&2; exit 1; }

export SITE_VERSION=$version SITE_OUT=$PWD/dist/site/$version SITE_BASE=${SITE_ROOT:-/}$version/
tool=dist/site-tool # not in hack/, whose tests read all files
mkdir -p $tool
rm -rf $tool/docs $tool/.vitepress
cp -r docs hack/site/{.vitepress,.npmrc,package.json,package-lock.json} $tool/
[[ -e $tool/node_modules/.package-lock.json && $tool/node_modules/.package-lock.json -nt hack/site/package-lock.json ]] || (cd $tool && npm ci --silent)
(cd $tool && npx --no-install vitepress build)
node --test --test-reporter=dot hack/site
node hack/site/check.mjs "$SITE_OUT" "$SITE_BASE"
node hack/site/versions.mjs dist/site
