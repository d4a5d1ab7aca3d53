// node --test hack/site
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'

function inDirectory(files, use) {
  const directory = mkdtempSync(path.join(tmpdir(), 'kidoban-site-'))
  try {
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(path.dirname(path.join(directory, file)), { recursive: true })
      writeFileSync(path.join(directory, file), text)
    }
    return use(directory)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const run = (script, ...args) => spawnSync(process.execPath, [path.join(import.meta.dirname, script), ...args], { encoding: 'utf8' })

const page = '<h2 id="what-&amp;-why">x</h2><a href="/v1/b/c">c</a><a href="https://example.com/x">x</a>'

for (const [name, link, message] of [
  ['no broken link', '/v1/#what-&amp;-why', ''],
  ['a page that is missing', '/v1/nothing', 'no such file'],
  ['a heading that is missing', '/v1/b/c#nothing', 'no such heading'],
  ['another version', '/v2/', 'not below /v1/'],
]) {
  test(name, () => inDirectory({ 'index.html': page, 'b/c.html': `<a class="x" href="${link}">x</a>` }, directory => {
    const { status, stderr } = run('check.mjs', directory, '/v1/')
    assert.equal(status, message ? 1 : 0, stderr)
    assert.match(stderr, new RegExp(message))
  }))
}

test('a site without links', () => inDirectory({ 'index.html': 'x', 'b.html': 'x' }, directory => {
  assert.equal(run('check.mjs', directory, '/v1/').status, 1)
}))

test('versions', () => inDirectory({ 'main/x': '', 'v0.9.0/x': '', 'v0.10.0/x': '' }, directory => {
  assert.equal(run('versions.mjs', directory).status, 0)
  assert.deepEqual(JSON.parse(readFileSync(path.join(directory, 'versions.json'))), ['v0.10.0', 'v0.9.0', 'main'])
  assert.match(readFileSync(path.join(directory, 'index.html'), 'utf8'), /url=v0\.10\.0\//)
}))
