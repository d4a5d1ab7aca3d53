// Runs the tests that need no browser: test/*.ts, bundled, by Node's own runner.
import { build } from 'esbuild';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const out = mkdtempSync(join(tmpdir(), 'kidoban-ui-'));
try {
  const tests = readdirSync('test').filter(f => f.endsWith('.test.ts'));
  await build({
    entryPoints: tests.map(f => 'test/' + f), bundle: true, platform: 'node', format: 'esm', target: 'node18', outdir: out, outExtension: { '.js': '.mjs' }, logLevel: 'warning',
    define: { 'import.meta.dirname': JSON.stringify(join(process.cwd(), 'test')) },
  });
  const run = spawnSync(process.execPath, ['--test', ...tests.map(f => join(out, f.replace('.ts', '.mjs')))], { stdio: 'inherit' });
  process.exitCode = run.status ?? 1;
} finally {
  rmSync(out, { recursive: true });
}
