import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unpack, type Cluster, type Wire } from '../src/model.ts';
import { order } from '../src/order.ts';
import { strays } from '../src/lanes.ts';
import { draw, nsOfRep, type Drawn } from '../src/routes.ts';
import { placesOf, question, sheet, slotsOf, type Box, type Places, type Sheet } from '../src/sheet.ts';
import { cluster, end, link, random, wire } from './cluster.ts';

const shapes = [{ namespaces: 4, workloads: 16, edges: 34 }, { namespaces: 20, workloads: 500, edges: 5000 }, { namespaces: 100, workloads: 5000, edges: 25000 }];
const all = (c: Cluster) => [...Array(c.size).keys()];
const everything = (c: Cluster) => new Set(c.namespaces.keys());

function layout(c: Cluster, open: ReadonlySet<number>, kept?: Places): { sheet: Sheet; places: Places } {
  const o = order(question(c)), slots = slotsOf(c, o, kept);
  return { sheet: sheet(c, slots, open, o, kept), places: placesOf(c, slots, kept) };
}

const overlap = (a: Box, b: Box) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;

test('the same cluster looks the same, whatever the order of its names', () => {
  const w = wire(shapes[0]), a = layout(unpack(w), new Set());
  assert.deepEqual(a, layout(unpack(w), new Set()));
  assert.deepEqual(a.places.slots, [['team-001', 'team-002'], ['team-000', 'team-003']], 'the golden order');
  const s = a.sheet;
  assert.deepEqual([s.width, s.height, s.boxes[0]], [730, 232, { x: 512, y: 0, w: 176, h: 86 }], 'the golden places');
});

for (const shape of shapes) {
  test(`boxes and plates of ${shape.workloads} workloads do not overlap`, () => {
    const c = cluster(shape), { sheet: s } = layout(c, everything(c)), boxes = [...s.boxes, s.outside!];
    boxes.forEach((a, i) => boxes.forEach((b, j) => assert.ok(i >= j || !overlap(a, b), `boxes ${i} and ${j}`)));
    c.members.forEach((list, ns) => list.forEach((n, i) => {
      const p = s.plates[n.index]!, b = s.boxes[ns];
      assert.ok(p.x >= b.x && p.y >= b.y && p.x + p.w <= b.x + b.w && p.y + p.h <= b.y + b.h, `${n.id} is inside its namespace`);
      if (i) assert.ok(!overlap(p, s.plates[list[i - 1].index]!), n.id);
    }));
  });

  test(`routes of ${shape.workloads} workloads cross no box that they do not concern`, () => {
    const c = cluster(shape);
    for (const open of shape.workloads > 500 ? [new Set<number>()] : [new Set<number>(), new Set([0, 1, 2]), everything(c)]) {
      const { sheet: s } = layout(c, open), d = draw(c, all(c), s, { open, every: false, loud: Infinity });
      assert.equal(crossings(c, s, d), 0, `${open.size} open`);
      assert.ok(d.routes.length > 3);
    }
    if (shape.edges > 120) return;
    const open = everything(c), { sheet: s } = layout(c, open), d = draw(c, all(c), s, { open, every: true, loud: Infinity });
    assert.equal(crossings(c, s, d), 0, 'each workload has its lines');
    assert.deepEqual(d.routes.filter(r => r.curve && strays(c, r, s)), [], 'curves');
    assert.ok(d.routes.some(r => r.curve) && d.routes.some(r => !r.curve));
  });

  test(`what is drawn and what is counted of ${shape.workloads} workloads is all there is`, () => {
    const c = cluster(shape), { sheet: s } = layout(c, new Set());
    const d = draw(c, all(c), s, { open: new Set(), every: false, loud: 44 });
    assert.equal(d.routes.reduce((n, r) => n + r.size, 0) + d.inside, c.size);
    assert.equal(d.routes.filter(r => r.quiet).length, d.quiet);
    assert.ok(d.routes.length - d.quiet <= 44);
    assert.ok(d.routes.every(r => r.quiet !== r.line.length > 0));
    assert.equal(d.inner.reduce((n, v) => n + v[0] + v[1] + v[2] + v[3], 0), d.inside);
  });
}

/** Stretches of lines that run through a box which is not one of their ends. */
function crossings(c: Cluster, s: Sheet, d: Drawn): number {
  let n = 0;
  for (const r of d.routes) {
    if (r.curve) continue;
    const own = new Set([r.a, r.b].map(x => (x < 0 ? nsOfRep(x) : c.nodes[x].ns)));
    for (let i = 0; i + 3 < r.line.length; i += 2) {
      const [x0, y0, x1, y1] = r.line.slice(i, i + 4), leg = { x: Math.min(x0, x1), y: Math.min(y0, y1), w: Math.abs(x1 - x0), h: Math.abs(y1 - y0) };
      s.boxes.forEach((b, ns) => (n += +(!own.has(ns) && overlap(leg, b))));
      if (s.outside && !own.has(-1)) n += +overlap(leg, s.outside);
    }
  }
  return n;
}

// --- a map that moves is not a map

const copy = (w: Wire): Wire => structuredClone(w);
const addNode = (w: Wire, ns: number, name: string) => {
  const n = w.nodes;
  n.id.push(w.namespaces[ns] + '/' + name);
  n.namespace.push(ns); n.name.push(name); n.kind.push('Deployment'); n.pods.push(1); n.ingress.push(0); n.egress.push(0);
  return n.id.length - 1;
};
function removeNode(w: Wire, node: number): void {
  const keep = w.edges.source.map((s, i) => s !== node && w.edges.destination[i] !== node), e = w.edges, at = (x: number) => (x > node ? x - 1 : x);
  w.edges = { source: e.source.filter((_, i) => keep[i]).map(at), destination: e.destination.filter((_, i) => keep[i]).map(at), first: [], port: e.port.filter((_, i) => keep[i]),
    protocol: e.protocol.filter((_, i) => keep[i]), verdict: e.verdict.filter((_, i) => keep[i]) };
  end(w);
  for (const column of Object.values(w.nodes)) (column as unknown[]).splice(node, 1);
}

const ROUNDS = 6, base = wire(shapes[1]), workloads = shapes[1].workloads;
const changes: Record<string, (w: Wire, r: () => number, i: number) => void> = {
  'a workload added': (w, r, i) => {
    const n = addNode(w, Math.floor(r() * w.namespaces.length), 'new-' + i);
    for (let k = 0; k < 3; k++) link(w, n, Math.floor(r() * workloads), 0);
    end(w);
  },
  'a workload removed': (w, r) => removeNode(w, Math.floor(r() * workloads)),
  'three edges added': (w, r) => {
    for (let k = 0; k < 3; k++) link(w, Math.floor(r() * workloads), Math.floor(r() * workloads), 0);
    end(w);
  },
  'a namespace added': (w, r, i) => {
    w.namespaces.push('new-' + i);
    for (let k = 0; k < 5; k++) link(w, addNode(w, w.namespaces.length - 1, 'app-' + k), Math.floor(r() * workloads), 0);
    end(w);
  },
  '1 % of edges removed': (w, r) => {
    const keep = w.edges.source.map(() => r() > 0.01), e = w.edges;
    w.edges = { source: e.source.filter((_, i) => keep[i]), destination: e.destination.filter((_, i) => keep[i]), first: [], port: e.port.filter((_, i) => keep[i]),
      protocol: e.protocol.filter((_, i) => keep[i]), verdict: e.verdict.filter((_, i) => keep[i]) };
    end(w);
  },
};

for (const [name, change] of Object.entries(changes)) {
  test(`of 500 workloads at most 5 % move: ${name}`, () => {
    const c = unpack(copy(base)), before = layout(c, everything(c)), r = random(3), diagonal = Math.hypot(before.sheet.width, before.sheet.height), shares: number[] = [];
    for (let i = 0; i < ROUNDS; i++) {
      const w = copy(base);
      change(w, r, i);
      const next = unpack(w), after = layout(next, everything(next), before.places);
      let moved = 0;
      for (const n of c.nodes) {
        const now = next.byId.get(n.id), p = before.sheet.plates[n.index]!, q = now === undefined ? undefined : after.sheet.plates[now];
        if (q && Math.hypot(p.x - q.x, p.y - q.y) > 0.02 * diagonal) moved++;
      }
      shares.push(moved / c.nodes.length);
    }
    shares.sort((a, b) => a - b);
    assert.ok(shares[ROUNDS / 2] <= 0.05, `median ${(100 * shares[ROUNDS / 2]).toFixed(1)} %`);
    assert.ok(shares[ROUNDS - 1] <= 0.12, `worst ${(100 * shares[ROUNDS - 1]).toFixed(1)} %`);
  });
}
