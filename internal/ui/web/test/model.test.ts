import assert from 'node:assert/strict';
import { test } from 'node:test';
import { filter } from '../src/filter.ts';
import { ALLOWED, AUDIT, DENIED, hasDenials, mayStroke, unpack, UNUSED, type Cluster, type Wire } from '../src/model.ts';

/** A port: its code, and how many connections there were and were denied. */
type P = [code: number, total?: number, denied?: number];

/** Edges of a to b, b to c and so on, with these ports. */
function cluster(edges: P[][], observer: boolean, truncated = false): Cluster {
  const ids = edges.map((_, i) => `ns/w${i}`).concat('ns/last'), zero = ids.map(() => 0), ports = edges.flat();
  const w: Wire = {
    name: 'test', id: '1', live: true, taken: '', namespaces: ['ns'], open: 0, denied: 0, policies: 0,
    nodes: { id: ids, namespace: zero, name: ids, kind: ids, pods: zero, ingress: zero, egress: zero },
    edges: {
      source: edges.map((_, i) => i), destination: edges.map((_, i) => i + 1), first: edges.map((_, i) => edges.slice(0, i).flat().length).concat(ports.length),
      port: ports.map((_, k) => 1 + k), protocol: ports.map(() => 6), verdict: ports.map(p => p[0]),
    },
  };
  if (observer) {
    const total = ports.map(p => p[1] ?? 0);
    w.seen = { rate: total, total, first: total, last: total, denied: ports.map(p => p[2] ?? 0) };
    w.traffic = { truncated };
  }
  return unpack(w);
}
const all = (c: Cluster) => [...c.stroke];

test('an edge that is denied on some ports keeps what it may do', () => {
  const c = cluster([[[0, 5], [1, 2, 2]], [[0], [1, 2, 2]], [[1, 2, 2]], [[2, 5], [1, 2, 2]], [[0, 5]], [[0, 5, 2]]], true);
  assert.deepEqual(all(c), [DENIED, DENIED, DENIED, DENIED, ALLOWED, DENIED]);
  assert.deepEqual(all(c).map((_, i) => mayStroke(c, i)), [ALLOWED, UNUSED, DENIED, AUDIT, ALLOWED, ALLOWED]);
  assert.deepEqual(all(c).map((_, i) => hasDenials(c, i)), [true, true, false, true, false, true]);
  assert.deepEqual(filter(c, '', new Set(), 'may', []).edges, [0, 1, 3, 4, 5]);
  const manifests = cluster([[[0], [1]], [[1]], [[5], [3]]], false);
  assert.deepEqual([0, 1, 2].map(i => mayStroke(manifests, i)), [ALLOWED, DENIED, ALLOWED]);
  assert.deepEqual([0, 1, 2].map(i => hasDenials(manifests, i)), [false, false, false]); // nothing was tried
});

test('where connections are left out of an answer, none is called never used', () => {
  const edges: P[][] = [[[0]], [[2]], [[0, 3]], [[0], [1, 1, 1]]];
  assert.deepEqual(all(cluster(edges, true)), [UNUSED, UNUSED, ALLOWED, DENIED]);
  const c = cluster(edges, true, true);
  assert.deepEqual(all(c), [ALLOWED, AUDIT, ALLOWED, DENIED]);
  assert.deepEqual(all(c).map((_, i) => mayStroke(c, i)), [ALLOWED, AUDIT, ALLOWED, ALLOWED]);
  assert.deepEqual(filter(c, '', new Set(), 'does', []).edges, [2, 3]); // it does talk only where that was seen
});
