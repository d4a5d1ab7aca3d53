// Edges come together in routes, by what stands for their ends on the sheet. Too many for an eye: the strongest and the worst are drawn, and the
// others are counted.
import type { Cluster } from './model.ts';
import { ALLOWED } from './model.ts';
import type { Box, Sheet } from './sheet.ts';
import { bend, lanes, strays } from './lanes.ts';

/** What stands for an end: a node by its index, or a namespace as -1 - its index. */
export type Rep = number;
export const repOfNs = (ns: number): Rep => -1 - ns;
export const nsOfRep = (r: Rep) => -1 - r;

export interface Route {
  a: Rep; b: Rep;
  /** By stroke. */
  n: [number, number, number, number];
  /** How many edges it has, and the first of them. */
  size: number; first: number;
  rate: number;
  worst: number;
  /** Not drawn unless it is asked for. */
  quiet: boolean;
  /** Corners of a line through the lanes, or the four points of a curve. */
  line: number[];
  curve: boolean;
  /** Where its mark stands. */
  mid: [number, number];
}

export const boxOf = (s: Sheet, r: Rep): Box | undefined => (r < 0 ? s.boxes[nsOfRep(r)] : s.plates[r]);

export interface Drawn {
  routes: Route[];
  /** How many routes are quiet, and how many edges are in no route because they are inside a closed namespace. */
  quiet: number; inside: number;
  /** By namespace, what is inside it, and all that begins or ends in it. */
  inner: Uint32Array[]; total: Uint32Array[];
}

export interface Ask {
  open: ReadonlySet<number>;
  /** Every edge between open namespaces is a line of its own. */
  every: boolean;
  /** At most so many routes are drawn. */
  loud: number;
}
/** Of one source at most four are drawn, and to one destination twice as many: a popular namespace must not fill the map. */
export const LOUD = 44, LOUD_EACH = 4;

export function draw(c: Cluster, edges: readonly number[], s: Sheet, ask: Ask): Drawn {
  const byEnds = new Map<number, Route>(), k = c.nodes.length + c.namespaces.length + 1, shift = c.namespaces.length + 1;
  const inner = c.namespaces.map(() => new Uint32Array(4)), total = c.namespaces.map(() => new Uint32Array(4));
  /** What each node is drawn as. */
  const reps = Int32Array.from(c.nodes, n => (n.ns < 0 || ask.every && ask.open.has(n.ns) ? n.index : repOfNs(n.ns)));
  let inside = 0;
  for (const i of edges) {
    const na = c.nodes[c.source[i]].ns, nb = c.nodes[c.destination[i]].ns, v = c.stroke[i], a = reps[c.source[i]], b = reps[c.destination[i]];
    if (na >= 0) total[na][v]++;
    if (nb >= 0 && nb !== na) total[nb][v]++;
    if (na === nb && na >= 0) inner[na][v]++;
    if (a === b) {
      inside++;
      continue;
    }
    const key = (a + shift) * k + b + shift;
    let r = byEnds.get(key);
    if (!r) byEnds.set(key, (r = route(a, b)));
    add(r, c, i);
  }
  const routes = [...byEnds.values()];
  const quiet = hush(routes, ask.every ? Infinity : ask.loud);
  shape(c, routes.filter(r => !r.quiet), s);
  return { routes, quiet, inside, inner, total };
}

/** A route without edges, and without a line. */
export const route = (a: Rep, b: Rep): Route => ({ a, b, n: [0, 0, 0, 0], size: 0, first: -1, rate: 0, worst: 3, quiet: false, line: [], curve: false, mid: [0, 0] });

export function add(r: Route, c: Cluster, edge: number): void {
  const v = c.stroke[edge];
  if (!r.size++) r.first = edge;
  r.n[v]++;
  r.rate += c.rate[edge];
  if (v < r.worst) r.worst = v;
}

/** The rest of the routes go quiet; never away. */
function hush(routes: Route[], loud: number): number {
  if (routes.length <= loud) return 0;
  const scores = Float64Array.from(routes, r => Math.log10(1 + r.rate + r.size) + (r.n[0] ? 0.5 + Math.log10(r.n[0]) : 0) + (r.n[1] ? 0.3 : 0));
  const each = new Map<Rep, number>(), into = new Map<Rep, number>();
  let kept = 0;
  for (const at of Uint32Array.from(routes.keys()).sort((x, y) => scores[y] - scores[x] || routes[x].a - routes[y].a || routes[x].b - routes[y].b)) {
    const r = routes[at];
    const from = each.get(r.a) ?? 0, to = into.get(r.b) ?? 0;
    if (kept < loud && (loud === Infinity || from < LOUD_EACH && to < 2 * LOUD_EACH)) {
      kept++;
      each.set(r.a, from + 1);
      into.set(r.b, to + 1);
    } else r.quiet = true;
  }
  return routes.length - kept;
}

/** Of more routes, curves may run behind boxes: there the eye follows no single line. */
const FEW = 400;

/** Lines of routes: between namespaces and the outside through the lanes, between workloads as curves, if no box is in their way. */
export function shape(c: Cluster, routes: Route[], s: Sheet): void {
  const through: Route[] = [], between: Route[] = [];
  for (const r of routes) ((r.a < 0 || c.nodes[r.a].ns < 0) && (r.b < 0 || c.nodes[r.b].ns < 0) && !(r.a >= 0 && r.b >= 0) ? through : between).push(r);
  if (between.length) bend(c, between, s);
  if (between.length <= FEW) through.push(...between.filter(r => strays(c, r, s)));
  if (through.length) lanes(c, through, s);
}

/** Width of a route's line. */
export const widthOf = (r: Route, traffic: boolean) =>
  traffic ? Math.min(3.5, Math.round((1 + 0.8 * Math.log10(1 + r.rate / 20)) * 2) / 2) : Math.min(3, Math.round((1 + 0.6 * Math.log10(r.size)) * 2) / 2);

/** Stroke that a route is drawn as: a mixed one as allowed, with a mark. */
export const strokeOf = (r: Route) => (r.n[ALLOWED] ? ALLOWED : r.worst);
