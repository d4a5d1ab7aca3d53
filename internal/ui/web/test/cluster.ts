// A synthetic cluster: popularity follows a power law, and the same seed gives the same cluster.
import { unpack, type Cluster, type Wire } from '../src/model.ts';

export function random(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    return s / 4294967296;
  };
}

export interface Shape { namespaces: number; workloads: number; edges: number; seed?: number }

export function wire({ namespaces, workloads, edges, seed = 1 }: Shape): Wire {
  const r = random(seed), power = (n: number, k: number) => Math.min(n - 1, Math.floor(n * r() ** k));
  const names = Array.from({ length: namespaces }, (_, i) => `team-${String(i).padStart(3, '0')}`);
  const w: Wire = {
    name: 'synthetic', id: '1', live: false, taken: '2026-01-02T03:04:05Z', namespaces: names, open: 0, denied: 0, policies: 0,
    nodes: { id: [], namespace: [], name: [], kind: [], pods: [], ingress: [], egress: [] },
    edges: { source: [], destination: [], first: [], port: [], protocol: [], verdict: [] },
  };
  const add = (ns: number, name: string) => {
    const n = w.nodes;
    n.id.push(ns < 0 ? 'outside:' + name : names[ns] + '/' + name);
    n.namespace.push(ns); n.name.push(name); n.kind.push('Deployment'); n.pods.push(2); n.ingress.push(+(r() < 0.7)); n.egress.push(+(r() < 0.4));
  };
  const of = names.map((): number[] => []);
  for (let i = 0; i < workloads; i++) {
    const ns = i < namespaces ? i : power(namespaces, 1.4);
    of[ns].push(i);
    add(ns, `app-${String(of[ns].length).padStart(3, '0')}`);
  }
  add(-1, 'internet');
  add(-1, '10.20.0.0/16');
  const seen = new Set<number>(), from = (ns: number) => of[ns][power(of[ns].length, 2)];
  for (let tries = 0; seen.size < edges && tries < edges * 50; tries++) {
    const a = power(namespaces, 1.2), q = r();
    const s = q < 0.02 ? workloads : from(a), d = q < 0.02 ? from(0) : q < 0.6 ? from(a) : q < 0.97 ? from(power(namespaces, 2)) : workloads + 1;
    const key = s * (workloads + 2) + d;
    if (s === d || seen.has(key)) continue;
    seen.add(key);
    link(w, s, d, r() < 0.03 ? 1 : r() < 0.02 ? 2 : 0);
  }
  return end(w);
}

export function link(w: Wire, s: number, d: number, verdict: number): void {
  w.edges.source.push(s);
  w.edges.destination.push(d);
  w.edges.port.push(8080);
  w.edges.protocol.push(6);
  w.edges.verdict.push(verdict);
}

/** Every edge has one port. */
export function end(w: Wire): Wire {
  w.edges.first = w.edges.source.map((_, i) => i).concat(w.edges.source.length);
  return w;
}

export const cluster = (s: Shape): Cluster => unpack(wire(s));
