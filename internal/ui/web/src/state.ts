// What the page shows, as signals: the address, the cluster, and all that follows from the two.
import { batch, computed, effect, signal } from '@preact/signals';
import * as api from './api.ts';
import { formatAddress, parseAddress, type Address, type Form, type View } from './address.ts';
import { filter, type Selector } from './filter.ts';
import { edgeBetween, ends, unpack, type Cluster } from './model.ts';
import type { Answer, Asked, Order } from './order.ts';
import { add, boxOf, draw, LOUD, nsOfRep, repOfNs, route, shape, type Rep, type Route } from './routes.ts';
import { placesOf, question, sheet, slotsOf, type Places } from './sheet.ts';
import type { Change, Scene } from './painter.ts';
import { bend } from './lanes.ts';
import { rate } from './text.ts';

export const address = signal<Address>(parseAddress(location.hash));
export const cluster = signal<Cluster | undefined>(undefined);
export const failed = signal<api.Failure | undefined>(undefined);
export const policies = signal<api.Policy[]>([]);
export const order = signal<Order | undefined>(undefined);
export const hovered = signal<Rep | undefined>(undefined);
export const focused = signal<Rep | undefined>(undefined);
export const help = signal(false);
export const spoken = signal('');
export const change = signal<api.WhatIf | undefined>(undefined);
/** Recorded connections that the change would deny or allow. */
export const replayed = signal<api.Replayed | undefined>(undefined);
/** What was typed that is not filtered by yet. */
export const typed = signal(address.value.text);

// --- the address

let written = location.hash;
export function go(next: Partial<Address>, push = false): void {
  address.value = { ...address.value, ...next };
  if (next.text !== undefined) typed.value = next.text;
  const hash = formatAddress(address.value);
  if (hash === written) return;
  written = hash;
  history[push ? 'pushState' : 'replaceState'](null, '', hash || location.pathname + location.search);
}
addEventListener('popstate', () => {
  written = location.hash;
  address.value = parseAddress(location.hash);
  typed.value = address.value.text;
});
addEventListener('hashchange', () => {
  if (location.hash === written) return;
  written = location.hash;
  address.value = parseAddress(location.hash);
  typed.value = address.value.text;
});

let asked = 0;
/** The filter follows what is typed after the letters that have arrived already: on a busy machine these come together. */
export function type(text: string): void {
  typed.value = text;
  clearTimeout(asked);
  asked = window.setTimeout(() => go({ text }));
}

// --- what follows

const MANY_ROUTES = 500, SMALL_EDGES = 120, MANY_NAMESPACES = 40;
const isSmall = (c: Cluster) => shownEdges(c) <= SMALL_EDGES && c.nodes.length <= 60;
const small = computed(() => !!cluster.value && isSmall(cluster.value));
const shownEdges = (c: Cluster) => c.stroke.reduce((n, s) => n + +(s > 0), 0);

export const view = computed<View>(() => address.value.view);
export const form = computed<Form>(() => address.value.form ?? ((cluster.value?.namespaces.length ?? 0) > MANY_NAMESPACES ? 'matrix' : 'graph'));
/** Without traffic nothing was tried: what policies deny is everything else, and is shown to those who ask. */
export const off = computed<ReadonlySet<string>>(() => new Set(address.value.off ?? (cluster.value?.traffic || view.value === 'flows' ? [] : ['denied'])));
export const every = computed(() => address.value.every ?? small.value);
export const open = computed<ReadonlySet<number>>(() => {
  const c = cluster.value;
  if (!c || order.value && !order.value.inner) return new Set(); // what is opened before its order is known waits for it
  const names = address.value.open;
  if (!names) return new Set(small.value ? c.namespaces.keys() : []);
  return new Set(names.flatMap(n => c.nsByName.get(n) ?? []));
});

export const selectors = computed<Selector[]>(() => policies.value.map(p => ({ id: p.id, tier: p.tier, ingress: p.ingress.nodes ?? [], egress: p.egress.nodes ?? [] })));
/** Of What if, which has no filter line, everything. */
export const filtered = computed(() => {
  const c = cluster.value;
  return c && filter(c, view.value === 'whatif' ? '' : address.value.text, off.value, address.value.mode, selectors.value);
});

const memory = (c: Cluster) => 'kidoban-places-' + c.id;
function remembered(c: Cluster): Places | undefined {
  try {
    return JSON.parse(localStorage.getItem(memory(c)) ?? '') as Places;
  } catch {
    return undefined;
  }
}
export const places = signal<Places | undefined>(undefined);
const slots = computed(() => cluster.value && order.value && slotsOf(cluster.value, order.value, places.value));
effect(() => {
  const c = cluster.value;
  if (!c || !slots.value) return;
  const next = placesOf(c, slots.value, places.peek());
  if (JSON.stringify(next) === JSON.stringify(places.peek())) return;
  try {
    localStorage.setItem(memory(c), JSON.stringify(next));
  } catch { /* a browser that keeps nothing */ }
});
/** Everything gets the place that the order gives it now. */
export function tidy(): void {
  const c = cluster.value;
  if (!c) return;
  localStorage.removeItem(memory(c));
  places.value = undefined;
}

export const layout = computed(() => cluster.value && slots.value && order.value && sheet(cluster.value, slots.value, open.value, order.value, places.value));
export const drawn = computed(() => {
  const c = cluster.value, s = layout.value, f = filtered.value;
  return c && s && f && draw(c, f.edges, s, { open: open.value, every: every.value, loud: LOUD });
});

/** Worst verdicts of each node, incoming and outgoing; 3 where there is nothing. Strokes that are switched off do not count. */
const issues = computed(() => {
  const c = cluster.value, f = filtered.value;
  if (!c || !f) return undefined;
  const into = new Uint8Array(c.nodes.length).fill(3), out = new Uint8Array(c.nodes.length).fill(3);
  for (const i of f.edges) {
    const v = c.stroke[i];
    if (v < into[c.destination[i]]) into[c.destination[i]] = v;
    if (v < out[c.source[i]]) out[c.source[i]] = v;
  }
  return { into, out };
});
const leftNs = computed(() => {
  const c = cluster.value, left = filtered.value?.nodes;
  if (!c || !left) return undefined;
  const out = new Uint8Array(c.namespaces.length);
  left.forEach((x, i) => {
    if (x && c.nodes[i].ns >= 0) out[c.nodes[i].ns] = 1;
  });
  return out;
});

// --- selection

export type Selection =
  | { kind: 'none' } | { kind: 'node'; node: number } | { kind: 'ns'; ns: number }
  | { kind: 'edge'; from: number; to: number; edge: number } | { kind: 'route'; a: Rep; b: Rep };

export function repName(c: Cluster, r: Rep): string {
  return r < 0 ? 'ns:' + c.namespaces[nsOfRep(r)] : c.nodes[r].id;
}
function repOf(c: Cluster, name: string): Rep | undefined {
  if (c.byId.has(name)) return c.byId.get(name)!;
  const ns = name.startsWith('ns:') ? c.nsByName.get(name.slice(3)) : undefined;
  return ns === undefined ? undefined : repOfNs(ns);
}
export const selection = computed<Selection>(() => {
  const c = cluster.value, text = address.value.selected;
  if (!c || !text) return { kind: 'none' };
  const one = repOf(c, text);
  if (one !== undefined) return one < 0 ? { kind: 'ns', ns: nsOfRep(one) } : { kind: 'node', node: one };
  const pair = ends(text, n => repOf(c, n) !== undefined);
  if (!pair) return { kind: 'none' };
  const [a, b] = [repOf(c, pair[0])!, repOf(c, pair[1])!];
  return a >= 0 && b >= 0 ? { kind: 'edge', from: a, to: b, edge: edgeBetween(c, a, b) } : { kind: 'route', a, b };
});
/** Select by name; the same again clears. */
export function select(name: string): void {
  go({ selected: name === address.value.selected ? '' : name }, true);
}
export const selectRep = (r: Rep) => select(repName(cluster.value!, r));
export function toggle(ns: number): void {
  const c = cluster.value!, next = new Set(open.value);
  if (!next.delete(ns)) next.add(ns);
  go({ open: [...next].sort((a, b) => a - b).map(i => c.namespaces[i]) });
}

/** The nearest that stands on the sheet for a node. */
const standsFor = (node: number): Rep => (layout.value!.plates[node] ? node : repOfNs(cluster.value!.nodes[node].ns));

/** Routes of one end, or of one pair, drawn although they are quiet or come together otherwise. */
function brought(c: Cluster, pick: (i: number) => boolean, edges: Iterable<number>): Route[] {
  const s = layout.value!, byEnds = new Map<string, Route>();
  for (const i of edges) {
    if (!pick(i)) continue;
    const a = standsFor(c.source[i]), b = standsFor(c.destination[i]);
    if (a === b) continue;
    let r = byEnds.get(a + ' ' + b);
    if (!r) byEnds.set(a + ' ' + b, (r = route(a, b)));
    add(r, c, i);
  }
  // a line between two workloads that is drawn already stays where it is
  const drawnAlready = drawn.value!.routes.length <= MANY_ROUTES ? drawn.value!.routes : [];
  const out = [...byEnds.values()].map(r => (r.a >= 0 && r.b >= 0 && drawnAlready.find(d => d.a === r.a && d.b === r.b && d.line.length > 0)) || r);
  const fresh = out.filter(r => !r.line.length);
  if (fresh.length) shape(c, fresh, s);
  return out;
}

const emphasis = computed<{ near: Set<Rep>; bright: Route[]; chosen: Route | undefined }>(() => {
  const c = cluster.value, s = layout.value, d = drawn.value, f = filtered.value, none = { near: new Set<Rep>(), bright: [], chosen: undefined };
  if (!c || !s || !d || !f) return none;
  const picked = selection.value;
  let bright: Route[] = [], chosen: Route | undefined;
  const near = new Set<Rep>();
  const ofNode = (node: number) => {
    bright = brought(c, i => !!f.mask[i], [...c.out[node], ...c.in[node]]);
    near.add(standsFor(node));
  };
  const ofNs = (ns: number) => {
    const rep = repOfNs(ns);
    bright = d.routes.filter(r => [r.a, r.b].some(x => x === rep || x >= 0 && c.nodes[x].ns === ns));
    const fresh = bright.filter(r => !r.line.length);
    if (fresh.length) shape(c, fresh, s);
    near.add(rep);
    for (const n of c.members[ns]) near.add(n.index);
  };
  const of = (r: Rep) => (r < 0 ? ofNs(nsOfRep(r)) : ofNode(r));
  switch (picked.kind) {
    case 'node': ofNode(picked.node); break;
    case 'ns': ofNs(picked.ns); break;
    case 'edge':
      bright = picked.edge < 0 ? [] : brought(c, () => true, [picked.edge]);
      chosen = bright[0];
      near.add(standsFor(picked.from));
      near.add(standsFor(picked.to));
      break;
    case 'route':
      chosen = d.routes.find(r => r.a === picked.a && r.b === picked.b);
      if (chosen) {
        bright = [chosen];
        if (!chosen.line.length) shape(c, bright, s);
      }
      near.add(picked.a);
      near.add(picked.b);
      break;
    case 'none':
      if (hovered.value === undefined || hovered.value < 0 && open.value.has(nsOfRep(hovered.value))) return none;
      of(hovered.value);
  }
  for (const r of bright) {
    near.add(r.a);
    near.add(r.b);
  }
  return { near, bright, chosen };
});

const changes = computed<Change[] | undefined>(() => {
  const c = cluster.value, s = layout.value, w = view.value === 'whatif' ? change.value : undefined;
  if (!c || !s || !w) return undefined;
  const out: Change[] = [], routes: Route[] = [], pairs: api.ChangedPair[] = [];
  for (const p of w.pairs) {
    const from = c.byId.get(p.from), to = c.byId.get(p.to);
    if (from === undefined || to === undefined) continue;
    const a = standsFor(from), b = standsFor(to);
    if (a === b) continue;
    routes.push(route(a, b));
    pairs.push(p);
  }
  bend(c, routes, s);
  const seen = new Map(replayed.value?.edges.map(e => [e.from + '>' + e.to, e]));
  routes.forEach((r, i) => {
    const e = seen.get(pairs[i].from + '>' + pairs[i].to);
    out.push({ line: r.line, gained: !!pairs[i].gained, lost: !!pairs[i].lost, label: e ? rate(e.denied || e.allowed) : '' });
  });
  return out;
});

export const scene = computed<Scene | undefined>(() => {
  const c = cluster.value, s = layout.value, d = drawn.value, f = filtered.value, w = issues.value;
  if (!c || !s || !d || !f || !w) return undefined;
  const e = emphasis.value, picked = selection.value;
  return {
    cluster: c, sheet: s, drawn: d, open: open.value, every: every.value, hovered: hovered.value, focused: focused.value, chosen: e.chosen, near: e.near, bright: e.bright,
    selected: picked.kind === 'node' ? standsFor(picked.node) : picked.kind === 'ns' ? repOfNs(picked.ns) : undefined,
    issues: w.into, issuesOut: w.out, left: f.nodes, leftNs: leftNs.value, changes: changes.value,
  };
});
export { boxOf };

// --- loading

const worker = new Worker(new URL('./worker.js', import.meta.url)); // it loads while the cluster is asked for
interface Known { question: string; slots: Promise<Order>; all: Promise<Order> }
let known: Known | undefined, orders = 0;

/** The order of the sheet, and then that inside of namespaces, too. What is asked again has the same answer. */
function ordered(c: Cluster): Known {
  const q = question(c), text = JSON.stringify(q), id = ++orders;
  if (known?.question === text) return known;
  let first!: (o: Order) => void, whole!: (o: Order) => void;
  const failure = new Promise<never>((_, fail) => {
    worker.onerror = e => {
      known = undefined;
      fail(new api.Failure('the order of the map', e.message));
    };
  });
  known = {
    question: text, slots: Promise.race([failure, new Promise<Order>(done => (first = done))]), all: Promise.race([failure, new Promise<Order>(done => (whole = done))]),
  };
  known.all.catch(() => undefined); // load waits for it later
  worker.onmessage = (e: MessageEvent<Answer>) => e.data.id === id && (e.data.order.inner ? whole : first)(e.data.order);
  worker.postMessage({ id, question: q } satisfies Asked);
  return known;
}

let turn = 0;
export async function load(): Promise<void> {
  const own = ++turn;
  try {
    const c = unpack(await api.getGraph(address.value.since));
    if (own !== turn) return;
    const list = api.getPolicies();
    list.catch(() => undefined); // it is waited for below
    const o = ordered(c), closed = address.value.open ? !address.value.open.length : !isSmall(c), first = await (closed ? o.slots : o.all);
    if (own !== turn) return;
    batch(() => {
      places.value ??= remembered(c);
      cluster.value = c;
      order.value = first;
      failed.value = undefined;
    });
    void o.all.then(all => own === turn && (order.value = all), () => undefined);
    const read = await list;
    if (own === turn) policies.value = read;
    await o.all;
  } catch (e) {
    if (own === turn) failed.value = e instanceof api.Failure ? e : new api.Failure('the map', String(e));
  }
}
