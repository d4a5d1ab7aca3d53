// The filter line: words that narrow, and keys that narrow by field. It decides for all forms of the map alike.
import type { Cluster } from './model.ts';
import { mayStroke, VERDICTS } from './model.ts';

export const KEYS = ['ns', 'from', 'to', 'port', 'policy', 'tier', 'verdict'] as const;
type Key = (typeof KEYS)[number];
export interface Term { key: Key | ''; value: string; not: boolean }
export interface Query { terms: Term[]; unknown: string[] }

/** A policy, as far as the filter needs it. */
export interface Selector { id: string; tier: string; ingress: number[]; egress: number[] }

export function parse(text: string): Query {
  const terms: Term[] = [], unknown: string[] = [];
  for (const word of text.split(/\s+/)) {
    const not = word.startsWith('-') && word.length > 1, rest = (not ? word.slice(1) : word).toLowerCase();
    if (!rest) continue;
    const m = /^([a-z]+):(.*)$/.exec(rest);
    if (!m || rest.startsWith('outside:')) terms.push({ key: '', value: rest, not });
    else if (!(KEYS as readonly string[]).includes(m[1])) unknown.push(m[1] + ':');
    else if (m[2]) terms.push({ key: m[1] as Key, value: m[2], not });
  }
  return { terms, unknown };
}

export interface Filtered {
  edges: number[];
  /** By edge, whether it is left. */
  mask: Uint8Array;
  /** By stroke, also of the strokes that are switched off. */
  counts: number[];
  /** Nodes that have an edge left, or undefined where no words narrow. */
  nodes: Uint8Array | undefined;
  unknown: string[];
}

export function filter(c: Cluster, text: string, off: ReadonlySet<string>, mode: 'both' | 'may' | 'does', policies: readonly Selector[]): Filtered {
  const q = parse(text);
  const tests = q.terms.map(t => test(c, t, policies));
  const holds = together(q.terms, tests);
  const edges: number[] = [], mask = new Uint8Array(c.size), counts = [0, 0, 0, 0], hidden = VERDICTS.map(v => off.has(v));
  const nodes = q.terms.length ? new Uint8Array(c.nodes.length) : undefined;
  for (let i = 0; i < c.size; i++) {
    const s = c.stroke[i];
    if (mode === 'does' && c.traffic && s > 0 && c.rate[i] === 0 || mode === 'may' && s === 0 && mayStroke(c, i) === 0) continue;
    if (!holds(i)) continue;
    counts[s]++;
    if (hidden[s]) continue;
    edges.push(i);
    mask[i] = 1;
    if (nodes) nodes[c.source[i]] = nodes[c.destination[i]] = 1;
  }
  return { edges, mask, counts, nodes, unknown: q.unknown };
}

/** Words, and all that excludes, must each hold; of several values of one key one must. */
export function together<T>(terms: readonly Term[], tests: readonly ((x: T) => boolean)[]): (x: T) => boolean {
  const must = terms.flatMap((t, i) => (t.key === '' || t.not ? [tests[i]] : [])), either = new Map<string, ((x: T) => boolean)[]>();
  terms.forEach((t, i) => {
    if (t.key && !t.not) either.set(t.key, [...(either.get(t.key) ?? []), tests[i]]);
  });
  const groups = [...either.values()];
  return x => must.every(f => f(x)) && groups.every(g => g.some(f => f(x)));
}

function test(c: Cluster, t: Term, policies: readonly Selector[]): (i: number) => boolean {
  const f = positive(c, t, policies);
  return t.not ? i => !f(i) : f;
}

function positive(c: Cluster, t: Term, policies: readonly Selector[]): (i: number) => boolean {
  const { source: s, destination: d } = c;
  /** Names are compared once for each node, not once for each edge. */
  const nodes = (match: (search: string, ns: number) => boolean) => Uint8Array.from(c.nodes, n => +match(n.search, n.ns));
  switch (t.key) {
    case 'ns': {
      const exact = c.namespaces.some(n => n.toLowerCase() === t.value);
      const hit = nodes((_, ns) => (ns < 0 ? t.value === 'outside' : exact ? c.namespaces[ns].toLowerCase() === t.value : c.namespaces[ns].toLowerCase().includes(t.value)));
      return i => !!(hit[s[i]] || hit[d[i]]);
    }
    case 'from': {
      const hit = nodes(x => x.includes(t.value));
      return i => !!hit[s[i]];
    }
    case 'to': {
      const hit = nodes(x => x.includes(t.value));
      return i => !!hit[d[i]];
    }
    case 'port': {
      const [number, protocol] = t.value.split('/'), want = number === 'other' ? 0 : Number(number);
      const kind = protocol && ({ tcp: 6, udp: 17, sctp: 132 } as Record<string, number>)[protocol];
      return i => {
        for (let k = c.first[i]; k < c.first[i + 1]; k++) if (c.port[k] === want && (!kind || c.protocol[k] === kind)) return true;
        return false;
      };
    }
    case 'policy':
      if (t.value === 'none') return i => !c.nodes[s[i]].egress && !c.nodes[d[i]].ingress;
      return selected(c, policies.filter(p => p.id.toLowerCase().replace(/^\S+ /, '').includes(t.value)));
    case 'tier':
      return selected(c, policies.filter(p => p.tier.toLowerCase().startsWith(t.value)));
    case 'verdict': {
      const at = ['denied', 'would', 'allowed', 'never'].findIndex(v => v.startsWith(t.value) || t.value.startsWith(v));
      return i => c.stroke[i] === at;
    }
    case '': {
      const hit = nodes(x => x.includes(t.value));
      return i => !!(hit[s[i]] || hit[d[i]]);
    }
  }
}

/** Edges about which some of these policies decide: they select the source for egress or the destination for ingress. */
function selected(c: Cluster, policies: readonly Selector[]): (i: number) => boolean {
  const from = new Uint8Array(c.nodes.length), to = new Uint8Array(c.nodes.length);
  for (const p of policies) {
    for (const n of p.egress) from[n] = 1;
    for (const n of p.ingress) to[n] = 1;
  }
  return i => !!(from[c.source[i]] || to[c.destination[i]]);
}

/** Completions of the last word of a filter. */
export function complete(c: Cluster, text: string, policies: readonly Selector[]): string[] {
  const last = /\S*$/.exec(text)![0], before = text.slice(0, text.length - last.length);
  const m = /^(-?)([a-z]+):(.*)$/.exec(last);
  if (!m) return last ? KEYS.filter(k => k.startsWith(last)).map(k => before + k + ':') : [];
  const values: Record<string, () => string[]> = {
    ns: () => c.namespaces, from: () => c.nodes.map(n => n.id), to: () => c.nodes.map(n => n.id), policy: () => ['none', ...policies.map(p => p.id.replace(/^\S+ /, ''))],
    tier: () => ['Admin', 'NetworkPolicy', 'Baseline'], verdict: () => ['denied', 'would-be-denied', 'allowed', 'never-used'],
    port: () => [...new Set(c.port)].filter(Boolean).sort((a, b) => a - b).map(String),
  };
  const wanted = m[3].toLowerCase();
  return (values[m[2]]?.() ?? []).filter(v => v.toLowerCase().includes(wanted) && !/\s/.test(v)).slice(0, 12).map(v => before + m[1] + m[2] + ':' + v);
}
