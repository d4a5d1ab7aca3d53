// Colours by arithmetic, not by eye: contrast (WCAG 2), and distances (CIE76) as protan, deutan and tritan eyes see them (Machado 2009).
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const css = readFileSync(join(import.meta.dirname, '../src/app.css'), 'utf8');
const tokens = (start: string) => Object.fromEntries([...css.slice(css.indexOf(start), css.indexOf('}', css.indexOf(start))).matchAll(/--([\w-]+): (#[0-9a-f]{6})/g)].map(m => [m[1], m[2]]));
const themes = { light: tokens(':root {'), dark: tokens(':root[data-theme="dark"] {') };

type Triple = [number, number, number];
const linear = (hex: string) => [1, 3, 5].map(i => {
  const c = parseInt(hex.slice(i, i + 2), 16) / 255;
  return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
}) as Triple;
const luminance = ([r, g, b]: Triple) => 0.2126 * r + 0.7152 * g + 0.0722 * b;
const contrast = (a: string, b: string) => {
  const [x, y] = [luminance(linear(a)), luminance(linear(b))].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05);
};
const sights: Record<string, Triple[]> = {
  normal: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protan: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  deutan: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
  tritan: [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
};
const lab = (rgb: Triple) => {
  const [r, g, b] = rgb.map(x => Math.min(1, Math.max(0, x))), f = (t: number) => (t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116);
  const x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047), y = f(0.2126 * r + 0.7152 * g + 0.0722 * b), z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883);
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
};
const seen = (hex: string, sight: Triple[]) => lab(sight.map(row => row.reduce((n, m, i) => n + m * linear(hex)[i], 0)) as Triple);
const distance = (a: string, b: string, sight: Triple[]) => Math.hypot(...seen(a, sight).map((v, i) => v - seen(b, sight)[i]));

const strokes = ['allowed', 'denied', 'audit', 'unused'];
for (const [name, t] of Object.entries(themes)) {
  test(`lines stand out from the ${name} canvas`, () => {
    const least = name === 'light' ? 3.15 : 5.2;
    for (const s of strokes) assert.ok(contrast(t[s], t.canvas) >= least, `${s}: ${contrast(t[s], t.canvas).toFixed(2)}`);
  });
  test(`verdicts are apart for every sight, ${name}`, () => {
    for (const [sight, m] of Object.entries(sights)) {
      strokes.forEach((a, i) => strokes.slice(i + 1).forEach(b => {
        const d = distance(t[a], t[b], m);
        assert.ok(d >= 24, `${a} and ${b}, ${sight}: ${d.toFixed(1)}`);
      }));
    }
  });
  test(`text can be read, ${name}`, () => {
    const pairs: [string, string][] = [['text', 'surface'], ['text', 'canvas'], ['soft', 'surface'], ['soft', 'canvas'], ['soft', 'hover'], ['accent', 'surface'], ['on-accent', 'accent'], ['text', 'plate'],
      ...strokes.flatMap((s): [string, string][] => [[s + '-text', s + '-ground'], [s + '-text', 'surface'], [s + '-text', 'canvas']])];
    for (const [a, b] of pairs) assert.ok(contrast(t[a], t[b]) >= 4.5, `${a} on ${b}: ${contrast(t[a], t[b]).toFixed(2)}`);
  });
}
