// Lines between namespaces run in the lanes between the rows and columns of the sheet, as on a map of a metro: never across a box that they do
// not concern. Lines whose stretches do not overlap share a lane, so that lanes stay apart.
import type { Cluster } from './model.ts';
import type { Box, Sheet } from './sheet.ts';
import type { Rep, Route } from './routes.ts';
import { boxOf, nsOfRep } from './routes.ts';

interface Leg { route: Route; channel: number; vertical: boolean; from: number; to: number; at: number; key: number }

const LANE_STEP = 9, LANE_LEAST = 3, EDGE = 11;

export function lanes(c: Cluster, routes: Route[], s: Sheet): void {
  const cellOf = (r: Rep): [number, number] => {
    const ns = r < 0 ? nsOfRep(r) : c.nodes[r].ns;
    return ns < 0 ? [-1, 0] : s.cell[ns];
  };
  const ports = portsOf(routes, s, cellOf);
  const middle = ([a, b]: [number, number]) => (a + b) / 2;
  const legs = new Map<Route, Leg[]>();
  for (const r of routes) {
    const [i, j] = cellOf(r.a), [k, l] = cellOf(r.b), [y0, y1] = ports.get(r)!;
    const out = i < 0 ? 0 : k >= i ? i + 1 : i, into = k < 0 ? 0 : k > i ? k : k + 1;
    const leg = (channel: number, vertical: boolean, from: number, to: number, key: number): Leg =>
      ({ route: r, channel, vertical, from: Math.min(from, to), to: Math.max(from, to), at: 0, key });
    if (out === into) {
      legs.set(r, [leg(out, true, y0, y1, y1)]);
      continue;
    }
    // The lane between the two rows that is nearer to the destination; beside one row, the lane above it.
    const row = i < 0 ? l : k < 0 ? j : j < l ? l : j > l ? l + 1 : j, y = middle(s.rows[row]);
    legs.set(r, [leg(out, true, y0, y, y1), leg(row, false, middle(s.columns[out]), middle(s.columns[into]), y0), leg(into, true, y, y1, y0)]);
  }
  assign([...legs.values()].flat(), s);
  for (const r of routes) {
    const [i] = cellOf(r.a), [k] = cellOf(r.b), a = boxOf(s, r.a)!, b = boxOf(s, r.b)!, [y0, y1] = ports.get(r)!, m = legs.get(r)!;
    const x0 = k >= i || i < 0 ? a.x + a.w : a.x, x1 = k > i ? b.x : b.x + b.w;
    r.curve = false;
    r.line = m.length === 1 ? [x0, y0, m[0].at, y0, m[0].at, y1, x1, y1]
      : [x0, y0, m[0].at, y0, m[0].at, m[1].at, m[2].at, m[1].at, m[2].at, y1, x1, y1];
  }
  marks(routes);
}

/** Where lines leave and reach their boxes: spread over the side, in the order of the other ends. */
function portsOf(routes: Route[], s: Sheet, cellOf: (r: Rep) => [number, number]): Map<Route, [number, number]> {
  const sides = new Map<string, { route: Route; end: 0 | 1; other: number }[]>(), out = new Map<Route, [number, number]>();
  const centre = (b: Box) => b.y + b.h / 2;
  for (const r of routes) {
    const i = cellOf(r.a)[0], k = cellOf(r.b)[0], a = boxOf(s, r.a)!, b = boxOf(s, r.b)!;
    out.set(r, [0, 0]);
    const put = (rep: Rep, right: boolean, end: 0 | 1, other: number) => {
      const key = rep + (right ? '>' : '<'), list = sides.get(key);
      list ? list.push({ route: r, end, other }) : sides.set(key, [{ route: r, end, other }]);
    };
    put(r.a, k >= i, 0, centre(b));
    put(r.b, k <= i, 1, centre(a));
  }
  for (const [key, list] of sides) {
    const b = boxOf(s, Number(key.slice(0, -1)))!, margin = Math.min(14, b.h * 0.2), span = Math.min(b.h - 2 * margin, (list.length - 1) * 10);
    list.sort((x, y) => x.other - y.other || x.end - y.end || x.route.a - y.route.a || x.route.b - y.route.b);
    list.forEach((p, n) => (out.get(p.route)![p.end] = centre(b) + (list.length > 1 ? (n / (list.length - 1) - 0.5) * span : 0)));
  }
  return out;
}

/** Each leg gets a lane of its channel. */
function assign(legs: Leg[], s: Sheet): void {
  const channels = new Map<string, Leg[]>();
  for (const g of legs) {
    const key = (g.vertical ? 'v' : 'h') + g.channel, list = channels.get(key);
    list ? list.push(g) : channels.set(key, [g]);
  }
  for (const list of channels.values()) {
    const [lo, hi] = (list[0].vertical ? s.columns : s.rows)[list[0].channel], room = hi - lo - 2 * EDGE;
    list.sort((x, y) => x.key - y.key || x.from - y.from || x.route.a - y.route.a || x.route.b - y.route.b);
    const taken: Leg[][] = [];
    for (const g of list) {
      let n = taken.findIndex(lane => lane.every(o => o.to + LANE_STEP < g.from || o.from - LANE_STEP > g.to));
      if (n < 0) n = taken.push([]) - 1;
      taken[n].push(g);
    }
    const step = Math.max(LANE_LEAST, Math.min(LANE_STEP, room / Math.max(1, taken.length - 1)));
    const fit = Math.max(1, Math.floor(room / step) + 1); // more lanes than fit are bundled
    taken.forEach((lane, n) => {
      const at = (lo + hi) / 2 + ((taken.length <= fit ? n - (taken.length - 1) / 2 : (n % fit) - (fit - 1) / 2)) * step;
      for (const g of lane) g.at = at;
    });
  }
}

/** Marks keep clear of each other: the middle of the longest stretch first, then other places on the line. */
function marks(routes: Route[]): void {
  const put: [number, number][] = [];
  for (const r of routes.slice().sort((a, b) => b.n[0] - a.n[0] || b.n[1] - a.n[1] || a.a - b.a || a.b - b.b)) {
    const places: [number, number, number][] = [], p = r.line;
    for (let n = 0; n + 3 < p.length; n += 2) {
      const d = Math.abs(p[n] - p[n + 2]) + Math.abs(p[n + 1] - p[n + 3]);
      if (d < 20) continue;
      for (const f of [0.5, 0.35, 0.65, 0.2, 0.8]) places.push([p[n] + (p[n + 2] - p[n]) * f, p[n + 1] + (p[n + 3] - p[n + 1]) * f, d * (1 - Math.abs(f - 0.5))]);
    }
    places.sort((x, y) => y[2] - x[2]);
    const free = places.find(q => put.every(o => Math.abs(o[0] - q[0]) > 26 || Math.abs(o[1] - q[1]) > 17)) ?? places[0];
    if (!free) continue;
    r.mid = [free[0], free[1]];
    if (r.n[0] || r.n[1]) put.push(r.mid);
  }
}

/** Whether a curve runs through a box that it does not concern. */
export function strays(c: Cluster, r: Route, s: Sheet): boolean {
  const [from, to] = [r.a, r.b].map(x => (x < 0 ? nsOfRep(x) : c.nodes[x].ns));
  for (let t = 0.04; t < 1; t += 0.04) {
    const [x, y] = onCurve(r.line, t), inside = (b: Box) => x > b.x && x < b.x + b.w && y > b.y && y < b.y + b.h;
    if (s.boxes.some((b, ns) => ns !== from && ns !== to && inside(b)) || s.outside && from >= 0 && to >= 0 && inside(s.outside)) return true;
  }
  return false;
}

type Side = 'l' | 'r' | 't' | 'b';
const NORMAL: Record<Side, [number, number]> = { l: [-1, 0], r: [1, 0], t: [0, -1], b: [0, 1] };

/** Lines between workloads: curves from side to side. Inside a namespace they go around the plates between their ends. */
export function bend(c: Cluster, routes: Route[], s: Sheet): void {
  const sides = new Map<string, { route: Route; end: 0 | 1; other: number }[]>(), chosen = new Map<Route, [Side, Side]>(), at = new Map<Route, number[]>();
  for (const r of routes) {
    const a = boxOf(s, r.a)!, b = boxOf(s, r.b)!, pair = sidesOf(a, b, r.a >= 0 && r.b >= 0 && c.nodes[r.a].ns === c.nodes[r.b].ns);
    chosen.set(r, pair);
    at.set(r, [0, 0, 0, 0]);
    ([[r.a, 0, b], [r.b, 1, a]] as const).forEach(([rep, end, other]) => {
      const across = pair[end] === 'l' || pair[end] === 'r', key = rep + pair[end], list = sides.get(key);
      const p = { route: r, end, other: across ? other.y + other.h / 2 : other.x + other.w / 2 };
      list ? list.push(p) : sides.set(key, [p]);
    });
  }
  for (const [key, list] of sides) {
    const side = key.slice(-1) as Side, b = boxOf(s, Number(key.slice(0, -1)))!;
    list.sort((x, y) => x.other - y.other || x.end - y.end || x.route.a - y.route.a || x.route.b - y.route.b);
    list.forEach((p, n) => {
      const f = list.length === 1 ? 0.5 : 0.14 + 0.72 * n / (list.length - 1), q = at.get(p.route)!;
      q[p.end * 2] = side === 'l' ? b.x : side === 'r' ? b.x + b.w : b.x + b.w * f;
      q[p.end * 2 + 1] = side === 't' ? b.y : side === 'b' ? b.y + b.h : b.y + b.h * f;
    });
  }
  for (const r of routes) {
    const [x0, y0, x1, y1] = at.get(r)!, [from, to] = chosen.get(r)!, d = Math.min(160, Math.max(22, Math.hypot(x1 - x0, y1 - y0) * (from === to ? 0.25 : 0.42)));
    r.curve = true;
    r.line = [x0, y0, x0 + NORMAL[from][0] * d, y0 + NORMAL[from][1] * d, x1 + NORMAL[to][0] * d, y1 + NORMAL[to][1] * d, x1, y1];
    r.mid = onCurve(r.line, 0.5);
  }
}

function sidesOf(a: Box, b: Box, together: boolean): [Side, Side] {
  const dx = b.x + b.w / 2 - a.x - a.w / 2, dy = b.y + b.h / 2 - a.y - a.h / 2;
  if (together) {
    if (Math.abs(dx) < 1) return Math.abs(dy) < 2.5 * a.h ? (dy > 0 ? ['b', 't'] : ['t', 'b']) : ['r', 'r'];
    if (Math.abs(dy) < 1) return Math.abs(dx) < 1.8 * a.w ? (dx > 0 ? ['r', 'l'] : ['l', 'r']) : ['t', 't'];
    return dx > 0 ? ['r', 'l'] : ['l', 'r'];
  }
  // Columns of the sheet do not overlap: what stands beside is reached from the side, what stands in the same column from above or below.
  if (a.x + a.w <= b.x) return ['r', 'l'];
  if (b.x + b.w <= a.x) return ['l', 'r'];
  return dy > 0 ? ['b', 't'] : ['t', 'b'];
}

export function onCurve(p: readonly number[], t: number): [number, number] {
  const u = 1 - t, a = u * u * u, b = 3 * u * u * t, c = 3 * u * t * t, d = t * t * t;
  return [a * p[0] + b * p[2] + c * p[4] + d * p[6], a * p[1] + b * p[3] + c * p[5] + d * p[7]];
}
