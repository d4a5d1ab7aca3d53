// Usage: node versions.mjs DIRECTORY
// Writes the list of the versions that a directory has, the newest first and main last, and a first page that leads to the first of them.
import { readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'

const [directory] = process.argv.slice(2)
const versions = readdirSync(directory, { withFileTypes: true }).filter(e => e.isDirectory()).map(e => e.name)
const isRelease = version => /^v\d+\.\d+\.\d+$/.test(version)
versions.sort((a, b) => isRelease(b) - isRelease(a) || b.localeCompare(a, 'en', { numeric: true }))
writeFileSync(path.join(directory, 'versions.json'), JSON.stringify(versions) + '\n')
writeFileSync(path.join(directory, 'index.html'), `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=${versions[0]}/">
<title>kidoban</title>
<a href="${versions[0]}/">kidoban ${versions[0]}</a>
</html>
`)
