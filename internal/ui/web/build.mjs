// Builds the page into ../dist. The bundle is committed, and embedded in kubectl-kidoban.
import { build, version } from 'esbuild';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const out = '../dist', most = 150 * 1024;
rmSync(out, { recursive: true, force: true });
mkdirSync(out);
const options = { bundle: true, minify: true, format: 'esm', target: 'es2022', jsx: 'automatic', jsxImportSource: 'preact', legalComments: 'none', metafile: true };
const inputs = new Set();
for (const entry of ['app.tsx', 'worker.ts', 'app.css']) {
  const done = await build({ ...options, entryPoints: ['src/' + entry], outfile: `${out}/${entry.replace(/tsx?$/, 'js')}` });
  for (const file of Object.keys(done.metafile.inputs)) inputs.add(file);
}
copyFileSync('index.html', `${out}/index.html`);

// Licences of what is in the bundle, not of what is installed.
const packages = new Map();
for (const file of inputs) {
  const m = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file);
  if (m) packages.set(m[1], JSON.parse(readFileSync(`node_modules/${m[1]}/package.json`, 'utf8')));
}
const allowed = ['MIT', 'ISC', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause'];
let licenses = `Built by esbuild ${version}. It contains, besides kidoban's own code (Apache-2.0):\n`;
for (const [name, p] of [...packages].sort()) {
  if (!allowed.includes(p.license)) throw new Error(`${name} has the licence ${p.license}, which is not one of ${allowed}`);
  const file = ['LICENSE', 'LICENSE.md', 'license'].find(f => { try { readFileSync(`node_modules/${name}/${f}`); return true; } catch { return false; } });
  licenses += `\n## ${name} ${p.version}, ${p.license}\n\n${file ? readFileSync(`node_modules/${name}/${file}`, 'utf8').trim() : ''}\n`;
}
writeFileSync(`${out}/licenses.txt`, licenses);

let sum = 0;
for (const file of ['index.html', 'app.js', 'worker.js', 'app.css']) {
  const size = gzipSync(readFileSync(`${out}/${file}`), { level: 9 }).length;
  sum += size;
  console.log(`${file}: ${size} bytes compressed`);
}
console.log(`${sum} of at most ${most} bytes`);
if (sum > most) throw new Error('the page is too large');
