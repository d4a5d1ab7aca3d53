// Where things stand. Namespaces stand in slots of a sheet, workloads in a grid inside their namespace. To open a namespace makes its row and its
// column larger, and nothing changes places. The same input gives the same sheet, to the last digit.
import type { Cluster } from './model.ts';
import type { Order, Question } from './order.ts';

export interface Box { x: number; y: number; w: number; h: number }
export interface Sheet {
  /** By namespace. */
  boxes: Box[];
  outside: Box | undefined;
  /** By node; undefined where its namespace is closed. */
  plates: (Box | undefined)[];
  /** Column and row of a namespace; the outside is in column -1. */
  cell: [number, number][];
  /** Lanes between columns and between rows, from and to. */
  columns: [number, number][];
  rows: [number, number][];
  width: number; height: number;
}
/** What a browser remembers of a sheet. */
export interface Places { slots: string[][]; room: Record<string, number> }

export const PLATE_W = 128, PLATE_H = 26, HEAD = 34, PAD = 14, CLOSED_W = 176, CLOSED_H = 86, ROW_LANE = 60, COLUMN_LANE = 84, OUTSIDE_W = 168;
const GAP = 10, WIDE_X = 64, WIDE_Y = 26;
/** A namespace with room for at most so many workloads is laid out by who calls whom, with room for lines; a larger one is a grid by name. */
export const SMALL = 16;

/** Room of a namespace, in steps of about a quarter and with a place to spare: a workload more or less seldom changes its size. */
export function room(n: number): number {
  let r = 4;
  while (r < n + 1) r = Math.max(r + 2, Math.round(r * 1.25));
  return r;
}

export function question(c: Cluster): Question {
  const pairs = new Map<number, number>(), inner = new Map<number, { ns: number; names: string[]; pairs: [number, number][] }>();
  const position = new Int32Array(c.nodes.length);
  c.members.forEach((list, ns) => {
    list.forEach((n, i) => (position[n.index] = i));
    if (list.length <= SMALL) inner.set(ns, { ns, names: list.map(n => n.name), pairs: [] });
  });
  for (let i = 0; i < c.size; i++) {
    if (!mayTalk(c, i)) continue;
    const a = c.nodes[c.source[i]].ns, b = c.nodes[c.destination[i]].ns;
    if (a < 0 || b < 0) continue;
    if (a === b) inner.get(a)?.pairs.push([position[c.source[i]], position[c.destination[i]]]);
    else pairs.set(a * 65536 + b, (pairs.get(a * 65536 + b) ?? 0) + 1);
  }
  return { names: c.namespaces, pairs: [...pairs].map(([k, n]) => [Math.floor(k / 65536), k % 65536, n]), inner: [...inner.values()] };
}

/** Whether policies allow some port of an edge: the order is by that, not by traffic. */
function mayTalk(c: Cluster, i: number): boolean {
  for (let k = c.first[i]; k < c.first[i + 1]; k++) if (c.code[k] !== 1 && c.code[k] !== 5) return true;
  return false;
}

/** Slots with those that are remembered kept; new namespaces get free slots, at the end of the shortest column. */
export function slotsOf(c: Cluster, order: Order, kept?: Places): number[][] {
  if (!kept) return order.slots;
  const out = kept.slots.map(column => column.map(name => c.nsByName.get(name) ?? -1)), have = new Set(out.flat());
  if (!out.length) out.push([]);
  for (const ns of order.slots.flat()) {
    if (have.has(ns)) continue;
    const gap = out.find(column => column.includes(-1));
    if (gap) gap[gap.indexOf(-1)] = ns;
    else out.reduce((a, b) => (b.length < a.length ? b : a)).push(ns);
  }
  return out;
}

export const placesOf = (c: Cluster, slots: number[][], kept?: Places): Places => ({
  slots: slots.map(column => column.map(ns => (ns < 0 ? '' : c.namespaces[ns]))),
  room: Object.fromEntries(c.namespaces.map((name, ns) => [name, Math.max(kept?.room[name] ?? 0, room(c.members[ns].length))])),
});

export function sheet(c: Cluster, slots: number[][], open: ReadonlySet<number>, order: Order, kept?: Places): Sheet {
  const inner = new Map(order.inner), rows = Math.max(1, ...slots.map(s => s.length));
  const width = slots.map(() => CLOSED_W), height: number[] = new Array(rows).fill(CLOSED_H);
  const shapes = c.namespaces.map((name, ns) => {
    if (!open.has(ns)) return { w: CLOSED_W, h: CLOSED_H, columns: 0, n: 0, dx: 0, dy: 0, down: false };
    const cap = Math.max(kept?.room[name] ?? 0, room(c.members[ns].length));
    if (cap <= SMALL && inner.has(ns)) { // about square: long chains would make everything small
      const columns = Math.max(1, Math.round(Math.sqrt(cap * 0.8))), n = Math.ceil(cap / columns), dx = PLATE_W + WIDE_X, dy = PLATE_H + WIDE_Y;
      return { w: Math.max(CLOSED_W, columns * dx - WIDE_X + 2 * PAD), h: HEAD + n * dy - WIDE_Y + PAD + 6, columns, n, dx, dy, down: true };
    }
    const columns = Math.max(2, Math.ceil(Math.sqrt(cap / 3.2))), n = Math.ceil(cap / columns);
    return { w: columns * (PLATE_W + GAP) - GAP + 2 * PAD, h: HEAD + n * (PLATE_H + GAP) - GAP + PAD, columns, n, dx: PLATE_W + GAP, dy: PLATE_H + GAP, down: false };
  });
  slots.forEach((column, i) => column.forEach((ns, j) => {
    if (ns < 0) return;
    width[i] = Math.max(width[i], shapes[ns].w);
    height[j] = Math.max(height[j], shapes[ns].h);
  }));
  const total = height.reduce((a, b) => a + b + ROW_LANE, -ROW_LANE);
  const boxes: Box[] = [], plates: (Box | undefined)[] = new Array(c.nodes.length), cell: [number, number][] = [];
  const columns: [number, number][] = [], lanes: [number, number][] = [];
  const has = c.outside.length > 0;
  let left = has ? OUTSIDE_W : -COLUMN_LANE, x = left + COLUMN_LANE;
  slots.forEach((column, i) => {
    columns.push([left, x]);
    let y = 0;
    column.forEach((ns, j) => {
      if (ns >= 0) {
        const s = shapes[ns], b = { x: x + (width[i] - s.w) / 2, y: y + (height[j] - s.h) / 2, w: s.w, h: s.h };
        boxes[ns] = b;
        cell[ns] = [i, j];
        const list = c.members[ns], by = s.down ? inner.get(ns)! : undefined;
        if (s.columns) list.forEach((_, k) => {
          const node = list[by ? by[k] : k], cx = by ? Math.floor(k / s.n) : k % s.columns, cy = by ? k % s.n : Math.floor(k / s.columns);
          plates[node.index] = { x: b.x + PAD + cx * s.dx, y: b.y + HEAD + (by ? 3 : 0) + cy * s.dy, w: PLATE_W, h: PLATE_H };
        });
      }
      y += height[j] + ROW_LANE;
    });
    left = x + width[i];
    x = left + COLUMN_LANE;
  });
  columns.push([left, x]);
  for (let j = 0, y = 0; j <= rows; j++) {
    lanes.push([y - ROW_LANE, y]);
    y += (height[j] ?? 0) + ROW_LANE;
  }
  let outside: Box | undefined;
  if (has) {
    const h = 40 + c.outside.length * 36, y = total / 2 - h / 2;
    outside = { x: 0, y, w: OUTSIDE_W, h };
    c.outside.forEach((n, k) => (plates[n.index] = { x: 12, y: y + HEAD + k * 36, w: OUTSIDE_W - 24, h: PLATE_H }));
  }
  return { boxes, outside, plates, cell, columns, rows: lanes, width: left + COLUMN_LANE / 2, height: Math.max(total, outside?.h ?? 0) };
}
