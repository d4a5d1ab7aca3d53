// The cluster as the map has it: columns of numbers, and indexes into them. Nothing here knows a browser.
import type { Coverage } from './missing.ts';

/** Stroke of an edge, the worst first. */
export type Verdict = 'denied' | 'audit' | 'allowed' | 'unused';
export const VERDICTS: readonly Verdict[] = ['denied', 'audit', 'allowed', 'unused'];
export const WORD: Record<Verdict, string> = { denied: 'Denied', audit: 'Would be denied', allowed: 'Allowed', unused: 'Never used' };
export const MARK: Record<Verdict, string> = { denied: '✘', audit: '▲', allowed: '✔', unused: '○' };
export const DENIED = 0, AUDIT = 1, ALLOWED = 2, UNUSED = 3;

/** Codes of a port's verdict, as the server has them. */
export const CODES = ['allowed', 'denied', 'would be denied', 'some pods', 'depends on an address', 'would be allowed'] as const;
export const CODE_MARKS = ['✔', '✘', '▲', '±', '?', '✘'] as const;
const STROKE_OF_CODE = [ALLOWED, DENIED, AUDIT, ALLOWED, ALLOWED, DENIED];

/** The answer of /api/graph. */
export interface Wire {
  /** agents: whether the nodes' agents are asked what is in force; replay: whether recorded connections can be judged again. */
  name: string; id: string; live: boolean; agents?: boolean; replay?: boolean; taken: string; namespaces: string[];
  nodes: { id: string[]; namespace: number[]; name: string[]; kind: string[]; pods: number[]; ingress: number[]; egress: number[] };
  edges: { source: number[]; destination: number[]; first: number[]; port: number[]; protocol: number[]; verdict: number[] };
  /** By port, like edges.port: connections per minute, their number, and when the first and the last one were, in seconds since 1970. */
  seen?: { rate: number[]; total: number[]; first: number[]; last: number[]; denied: number[] };
  traffic?: Traffic;
  open: number; denied: number; policies: number; notes?: string[];
}

/** What the observer's answer covers, or why there is none. */
export interface Traffic extends Coverage { error?: string; rights?: boolean; hidden?: string[]; unplaced?: number }

export interface Node { index: number; id: string; ns: number; name: string; kind: string; pods: number; ingress: number; egress: number; search: string }
export interface Port { port: number; protocol: number; code: number; rate: number; total: number; denied: number; first: number; last: number }

export interface Cluster {
  name: string; id: string; live: boolean; agents: boolean; replay: boolean; taken: string;
  namespaces: string[]; nodes: Node[]; members: Node[][]; outside: Node[];
  byId: Map<string, number>; nsByName: Map<string, number>;
  size: number; source: Int32Array; destination: Int32Array; first: Int32Array; stroke: Uint8Array; rate: Float32Array;
  port: Uint16Array; protocol: Uint8Array; code: Uint8Array;
  /** By port, as in Wire.seen: tried is how many were denied. */
  portRate?: Float32Array; total?: Float64Array; tried?: Float64Array; began?: Float64Array; last?: Float64Array;
  /** Edges of each node, by index of the edge. */
  out: number[][]; in: number[][];
  open: number; left: number; policies: number; notes: string[]; traffic: boolean; covered: Traffic | undefined;
}

export function unpack(w: Wire): Cluster {
  const { nodes: n, edges: e } = w;
  const nodes = n.id.map((id, index): Node => ({
    index, id, ns: n.namespace[index], name: n.name[index], kind: n.kind[index], pods: n.pods[index], ingress: n.ingress[index], egress: n.egress[index],
    search: id.toLowerCase(),
  }));
  const members: Node[][] = w.namespaces.map(() => []), outside: Node[] = [];
  for (const x of nodes) (x.ns < 0 ? outside : members[x.ns]).push(x);
  for (const list of members) list.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.index - b.index));
  const size = e.source.length, first = Int32Array.from(e.first.length ? e.first : [0]);
  const code = Uint8Array.from(e.verdict), stroke = new Uint8Array(size), rate = new Float32Array(size);
  const out: number[][] = nodes.map(() => []), into: number[][] = nodes.map(() => []);
  for (let i = 0; i < size; i++) {
    stroke[i] = w.seen ? seenStroke(w.seen, code, first[i], first[i + 1], !!w.traffic?.truncated) : strokeOf(code, first[i], first[i + 1]);
    if (w.seen) for (let k = first[i]; k < first[i + 1]; k++) rate[i] += w.seen.rate[k];
    out[e.source[i]].push(i);
    into[e.destination[i]].push(i);
  }
  return {
    name: w.name, id: w.id, live: w.live, agents: !!w.agents, replay: !!w.replay, taken: w.taken, namespaces: w.namespaces, nodes, members, outside,
    byId: new Map(nodes.map(x => [x.id, x.index])), nsByName: new Map(w.namespaces.map((x, i) => [x, i])),
    size, source: Int32Array.from(e.source), destination: Int32Array.from(e.destination), first, stroke, rate,
    port: Uint16Array.from(e.port), protocol: Uint8Array.from(e.protocol), code,
    portRate: w.seen && Float32Array.from(w.seen.rate), total: w.seen && Float64Array.from(w.seen.total),
    tried: w.seen && Float64Array.from(w.seen.denied), began: w.seen && Float64Array.from(w.seen.first), last: w.seen && Float64Array.from(w.seen.last),
    out, in: into, open: w.open, left: w.denied, policies: w.policies, notes: w.notes ?? [], traffic: !!w.seen, covered: w.traffic,
  };
}

/** Without traffic an edge is what its best port is: one that may talk on some port may talk. Audit counts where it takes away a port. */
function strokeOf(code: Uint8Array, from: number, to: number): number {
  let best = DENIED, audit = false;
  for (let k = from; k < to; k++) {
    const s = STROKE_OF_CODE[code[k]];
    if (s === AUDIT) audit = true;
    else if (s > best) best = s;
  }
  return audit ? AUDIT : best;
}

/** With traffic an edge is the worst that happened. One on which nothing happened was never used, unless connections are left out of the answer: then
 * it is what policies say. */
function seenStroke(seen: NonNullable<Wire['seen']>, code: Uint8Array, from: number, to: number, truncated: boolean): number {
  let used = false, worst = UNUSED, allowed = false;
  for (let k = from; k < to; k++) {
    allowed ||= code[k] !== 1 && code[k] !== 5;
    if (seen.denied[k] > 0) return DENIED;
    if (seen.total[k] > 0) {
      used = true;
      worst = Math.min(worst, STROKE_OF_CODE[code[k]] === AUDIT ? AUDIT : ALLOWED);
    }
  }
  return used ? worst : allowed ? (truncated ? strokeOf(code, from, to) : UNUSED) : DENIED; // of a pair that was never tried the server sends no edge
}

const isDenied = (code: number) => STROKE_OF_CODE[code] === DENIED;

/** The worst of the ports of an edge on which connections may be opened, whatever was denied on others; DENIED if policies deny all. */
export function mayStroke(c: Cluster, edge: number): number {
  let worst = UNUSED + 1;
  for (let k = c.first[edge]; k < c.first[edge + 1]; k++) {
    if (isDenied(c.code[k])) continue;
    const unused = c.total && !c.total[k] && !c.covered?.truncated;
    worst = Math.min(worst, unused ? UNUSED : STROKE_OF_CODE[c.code[k]]);
  }
  return worst > UNUSED ? DENIED : worst;
}

/** Whether connections were denied on an edge that allows others. */
export function hasDenials(c: Cluster, edge: number): boolean {
  return mayStroke(c, edge) !== DENIED && !!c.tried?.subarray(c.first[edge], c.first[edge + 1]).some(n => n > 0);
}

export function portsOf(c: Cluster, edge: number): Port[] {
  const out: Port[] = [];
  for (let k = c.first[edge]; k < c.first[edge + 1]; k++)
    out.push({
      port: c.port[k], protocol: c.protocol[k], code: c.code[k], rate: c.portRate?.[k] ?? 0, total: c.total?.[k] ?? 0, denied: c.tried?.[k] ?? 0, first: c.began?.[k] ?? 0, last: c.last?.[k] ?? 0,
    });
  return out;
}

const PROTOCOLS: Record<number, string> = { 1: 'ICMP', 6: 'TCP', 17: 'UDP', 58: 'ICMPv6', 132: 'SCTP' };
export const protocolName = (p: number) => PROTOCOLS[p] ?? String(p);
/** As the command's matrix has it: 80, 53/UDP, other. */
export const portName = (port: number, protocol: number) => (port ? String(port) : 'other') + (protocol === 6 ? '' : '/' + protocolName(protocol));
export const edgeId = (c: Cluster, i: number) => c.nodes[c.source[i]].id + '>' + c.nodes[c.destination[i]].id;

/** Edge between two nodes, or -1. */
export function edgeBetween(c: Cluster, from: number, to: number): number {
  return c.out[from]?.find(i => c.destination[i] === to) ?? -1;
}

/** Both ends of "a>b", where a name may have the character too. */
export function ends(text: string, known: (name: string) => boolean): [string, string] | undefined {
  for (let at = text.indexOf('>'); at >= 0; at = text.indexOf('>', at + 1)) {
    const a = text.slice(0, at), b = text.slice(at + 1);
    if (known(a) && known(b)) return [a, b];
  }
  return undefined;
}

/** Whether an edge comes before another where the worst come first. */
const before = (c: Cluster, a: number, b: number) => c.stroke[a] - c.stroke[b] || c.rate[b] - c.rate[a] || a - b;

const orders = new WeakMap<Cluster, Int32Array>();
/** All edges, the worst first: computed once for a cluster. */
export function worstFirst(c: Cluster): Int32Array {
  let out = orders.get(c);
  if (!out) orders.set(c, (out = Int32Array.from({ length: c.size }, (_, i) => i).sort((a, b) => before(c, a, b))));
  return out;
}

/** The worst of some edges, without putting all of them in order. */
export function worst(c: Cluster, edges: Iterable<number>, most: number): number[] {
  const out: number[] = [];
  for (const i of edges) {
    if (out.length === most && before(c, out[most - 1], i) < 0) continue;
    let at = out.length;
    while (at > 0 && before(c, out[at - 1], i) > 0) at--;
    out.splice(at, 0, i);
    if (out.length > most) out.pop();
  }
  return out;
}

/** What of a list of edges there is, by stroke. */
export function count(c: Cluster, edges: Iterable<number>): number[] {
  const n = [0, 0, 0, 0];
  for (const i of edges) n[c.stroke[i]]++;
  return n;
}
