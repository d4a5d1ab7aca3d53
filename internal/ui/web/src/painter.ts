// The painter: canvas 2D and nothing else. It gets a scene and draws it, in few strokes: one for each verdict and width.
import type { Cluster } from './model.ts';
import { ALLOWED, AUDIT, DENIED, UNUSED } from './model.ts';
import type { Box, Sheet } from './sheet.ts';
import { HEAD } from './sheet.ts';
import type { Drawn, Rep, Route } from './routes.ts';
import { boxOf, nsOfRep, repOfNs, strokeOf, widthOf } from './routes.ts';
import { plain } from './text.ts';

export interface Camera { x: number; y: number; k: number }
/** Lines of a comparison: gained and lost pairs. */
/** A pair that gains or loses ports; the label is how many recorded connections that concerns. */
export interface Change { line: number[]; gained: boolean; lost: boolean; label: string }
export interface Scene {
  cluster: Cluster; sheet: Sheet; drawn: Drawn; open: ReadonlySet<number>; every: boolean;
  selected: Rep | undefined; hovered: Rep | undefined; focused: Rep | undefined;
  /** Route that is selected. */
  chosen: Route | undefined;
  /** What the selection or the pointer brings out: routes, and what they touch. Empty: nothing fades. */
  near: ReadonlySet<Rep>; bright: readonly Route[];
  /** Worst verdicts of each node, incoming and outgoing. */
  issues: Uint8Array; issuesOut: Uint8Array;
  /** Nodes that the filter leaves; undefined: all. */
  left: Uint8Array | undefined; leftNs: Uint8Array | undefined;
  changes: readonly Change[] | undefined;
}
export interface Ink {
  canvas: string; box: string; boxLine: string; plate: string; plateLine: string; text: string; soft: string; accent: string;
  stroke: readonly [string, string, string, string];
}
const DASH: readonly number[][] = [[7, 4], [9, 3, 2, 3], [], [1.5, 4]];
const FONT = 'Inter, ui-sans-serif, system-ui, sans-serif';

type Pen = CanvasRenderingContext2D;

export function paint(g: Pen, s: Scene, cam: Camera, w: number, h: number, ratio: number, ink: Ink): void {
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.fillStyle = ink.canvas;
  g.fillRect(0, 0, w, h);
  g.setTransform(ratio * cam.k, 0, 0, ratio * cam.k, ratio * cam.x, ratio * cam.y);
  const view: Box = { x: -cam.x / cam.k, y: -cam.y / cam.k, w: w / cam.k, h: h / cam.k };
  const faded = s.near.size > 0 || !!s.changes;
  const brush = new Brush(g, s, ink, cam.k, view, faded);
  if (s.every) brush.grounds();
  brush.routes();
  if (!s.every) brush.grounds();
  brush.heads();
  brush.boxes();
  brush.plates();
  brush.bright();
  if (s.changes) brush.changes(s.changes);
  brush.rings();
}

class Brush {
  /** Lines stay visible when the map is small. */
  private readonly z: number;
  private readonly many: boolean;
  private shown: Route[] = [];
  constructor(private g: Pen, private s: Scene, private ink: Ink, private k: number, private view: Box, private faded: boolean) {
    this.z = 1 / Math.max(0.55, Math.min(1, k));
    this.many = s.every && s.drawn.routes.length > 900;
  }

  private sees(b: Box): boolean {
    const v = this.view;
    return b.x < v.x + v.w && b.x + b.w > v.x && b.y < v.y + v.h && b.y + b.h > v.y;
  }

  private dash(stroke: number): number[] {
    return this.k >= 1 ? DASH[stroke] : DASH[stroke].map(x => x / Math.max(0.45, this.k));
  }

  private dimNs(ns: number): number {
    if (this.s.leftNs && !this.s.leftNs[ns]) return 0.35;
    return this.s.changes ? 0.55 : 1;
  }

  /** Grounds of boxes, under or over the lines. */
  grounds(): void {
    const { g, s, ink } = this;
    const one = (b: Box, open: boolean, dashed: boolean) => {
      rounded(g, b, 10);
      g.fillStyle = ink.box;
      g.fill();
      g.lineWidth = 1 / Math.max(0.6, this.k);
      g.strokeStyle = ink.boxLine;
      g.setLineDash(dashed ? [4, 4] : []);
      g.stroke();
      g.setLineDash([]);
      if (!open) return;
      g.beginPath();
      g.moveTo(b.x, b.y + HEAD - 6);
      g.lineTo(b.x + b.w, b.y + HEAD - 6);
      g.stroke();
    };
    s.sheet.boxes.forEach((b, ns) => {
      if (!this.sees(b)) return;
      g.globalAlpha = this.dimNs(ns);
      one(b, s.open.has(ns), false);
    });
    g.globalAlpha = 1;
    if (s.sheet.outside && this.sees(s.sheet.outside)) one(s.sheet.outside, false, true);
  }

  /** All routes that are not brought out, in one stroke for each verdict and width. */
  routes(): void {
    const { g, s, ink } = this, paths = new Map<number, Path2D>(), bright = new Set(s.bright);
    for (const r of s.drawn.routes) {
      if (r.quiet || bright.has(r) || !this.sees(bounds(r.line))) continue;
      this.shown.push(r);
      const stroke = strokeOf(r), width = this.many || stroke === UNUSED ? 1 : stroke === ALLOWED ? widthOf(r, s.cluster.traffic) : Math.min(2, widthOf(r, s.cluster.traffic));
      const key = stroke * 10 + width;
      let path = paths.get(key);
      if (!path) paths.set(key, (path = new Path2D()));
      trace(path, r);
    }
    // what is denied comes last, on top
    for (const [key, path] of [...paths].sort((a, b) => b[0] - a[0])) {
      const stroke = Math.floor(key / 10);
      g.strokeStyle = ink.stroke[stroke];
      g.globalAlpha = (this.many ? (stroke === DENIED ? 0.55 : 0.16) : stroke === ALLOWED ? 0.75 : 0.95) * (this.faded ? 0.16 : 1);
      g.lineWidth = (key % 10) * this.z;
      g.setLineDash(this.many ? [] : this.dash(stroke));
      g.stroke(path);
    }
    g.setLineDash([]);
    g.globalAlpha = 1;
  }

  heads(): void {
    if (this.many) return;
    const { g, ink } = this;
    g.globalAlpha = this.faded ? 0.16 : 1;
    for (const r of this.shown) this.arrow(r, ink.stroke[strokeOf(r)]);
    if (!this.faded) for (const r of this.shown) if ((r.n[DENIED] || r.n[AUDIT])) this.mark(r);
    g.globalAlpha = 1;
  }

  private arrow(r: Route, colour: string): void {
    const g = this.g, p = r.line, n = p.length, size = 8 * this.z, x = p[n - 2], y = p[n - 1];
    const a = Math.atan2(y - p[n - 3], x - p[n - 4]);
    g.beginPath();
    g.moveTo(x, y);
    g.lineTo(x - size * Math.cos(a - 0.42), y - size * Math.sin(a - 0.42));
    g.lineTo(x - size * Math.cos(a + 0.42), y - size * Math.sin(a + 0.42));
    g.closePath();
    g.fillStyle = colour;
    g.fill();
  }

  private mark(r: Route): void {
    const { g, ink } = this, v = r.n[DENIED] ? DENIED : AUDIT, n = r.n[v], z = 1 / Math.max(0.55, Math.min(1.2, this.k)), [x, y] = r.mid;
    const text = r.size > 1 ? String(n) : '';
    g.font = `600 ${9.5 * z}px ${FONT}`;
    const w = 14 * z + (text ? g.measureText(text).width + 3 * z : 0), h = 14 * z;
    rounded(g, { x: x - w / 2, y: y - h / 2, w, h }, h / 2);
    g.fillStyle = ink.canvas;
    g.fill();
    g.strokeStyle = ink.stroke[v];
    g.lineWidth = 1.2 * z;
    g.stroke();
    sign(g, v, x - w / 2 + 7 * z, y, 3 * z, ink.stroke[v]);
    if (!text) return;
    g.fillStyle = ink.text;
    g.textBaseline = 'middle';
    g.textAlign = 'left';
    g.fillText(text, x - w / 2 + 12 * z, y + 0.5 * z);
  }

  boxes(): void {
    const { g, s, ink, k } = this;
    s.sheet.boxes.forEach((b, ns) => {
      if (!this.sees(b)) return;
      const open = s.open.has(ns), near = !this.faded || s.changes || s.near.has(repOfNs(ns)) || open, z = k < 0.5 ? Math.min(2.4, 0.5 / k) : 1;
      g.globalAlpha = this.dimNs(ns) * (near ? 1 : 0.4);
      g.textBaseline = 'middle';
      g.textAlign = 'left';
      g.fillStyle = ink.text;
      g.font = `600 ${13 * z}px ${FONT}`;
      const size = s.cluster.members[ns].length;
      if (open) {
        const name = fit(g, s.cluster.namespaces[ns], b.w - 80, 13 * z);
        g.fillText(name, b.x + 14, b.y + 15);
        const x = b.x + 22 + g.measureText(name).width;
        g.font = `400 ${11 * z}px ${FONT}`;
        g.fillStyle = ink.soft;
        g.fillText(String(size), x, b.y + 15.5);
        chevron(g, b.x + b.w - 18, b.y + 14, ink.soft, true);
      } else {
        g.fillText(fit(g, s.cluster.namespaces[ns], b.w - (k < 0.4 ? 28 : 46), 13 * z), b.x + 14, b.y + (k < 0.4 ? b.h / 2 - 8 : 24));
        this.summary(b, ns, size);
      }
    });
    g.globalAlpha = 1;
    const out = s.sheet.outside;
    if (out && this.sees(out)) {
      g.font = `600 13px ${FONT}`;
      g.textBaseline = 'middle';
      g.textAlign = 'left';
      g.fillStyle = ink.text;
      g.fillText('Outside the cluster', out.x + 14, out.y + 16);
    }
  }

  /** What a closed namespace has: its size, marks of what is inside, and shares of verdicts. */
  private summary(b: Box, ns: number, size: number): void {
    const { g, s, ink, k } = this, total = s.drawn.total[ns], sum = total[0] + total[1] + total[2] + total[3], before = g.globalAlpha;
    if (sum) {
      let x = b.x + 14;
      const width = b.w - 28, deep = k < 0.4 ? 8 : 4, y = b.y + b.h - 19 - (k < 0.4 ? 4 : 0);
      for (const v of [DENIED, AUDIT, ALLOWED, UNUSED]) {
        if (!total[v]) continue;
        const w = Math.max(2.5, width * total[v] / sum - 1.5);
        g.fillStyle = ink.stroke[v];
        g.globalAlpha = before * (v === UNUSED ? 0.45 : 1);
        g.fillRect(x, y, Math.min(w, b.x + b.w - 14 - x), deep);
        x += w + 1.5;
      }
      g.globalAlpha = before;
    }
    if (k < 0.4) return;
    g.font = `400 11px ${FONT}`;
    g.fillStyle = ink.soft;
    g.fillText(size === 1 ? '1 workload' : `${size} workloads`, b.x + 14, b.y + 46);
    chevron(g, b.x + b.w - 18, b.y + 23, ink.soft, false);
    let x = b.x + b.w - 14;
    for (const v of [DENIED, AUDIT]) {
      const n = s.drawn.inner[ns][v];
      if (!n) continue;
      g.textAlign = 'right';
      g.fillStyle = ink.text;
      g.font = `500 11px ${FONT}`;
      g.fillText(String(n), x, b.y + 46.5);
      x -= g.measureText(String(n)).width + 8;
      sign(g, v, x, b.y + 46, 3.2, ink.stroke[v]);
      x -= 11;
    }
    g.textAlign = 'left';
  }

  plates(): void {
    if (this.k <= 0.16) return;
    const { s } = this;
    s.sheet.plates.forEach((b, i) => {
      if (b && this.sees(b)) this.plate(b, i);
    });
    this.g.globalAlpha = 1;
  }

  private plate(b: Box, i: number): void {
    const { g, s, ink, k } = this, node = s.cluster.nodes[i], off = this.faded && !s.near.has(i);
    g.globalAlpha = off ? 0.28 : s.left && !s.left[i] ? 0.3 : 1;
    rounded(g, b, 6);
    g.fillStyle = ink.plate;
    g.fill();
    if (k > 0.3) {
      g.strokeStyle = ink.plateLine;
      g.lineWidth = 1;
      g.stroke();
    }
    const w = k < 0.4 ? 8 : 3.2;
    for (const [v, x] of [[s.issues[i], b.x], [s.issuesOut[i], b.x + b.w - w]]) {
      if (v > AUDIT) continue;
      g.fillStyle = ink.stroke[v];
      g.beginPath();
      g.roundRect(x, b.y + 5, w, b.h - 10, 2);
      g.fill();
    }
    if (k < 0.38) return;
    disc(g, b.x + 17, b.y + b.h / 2, node, ink);
    g.fillStyle = ink.text;
    g.font = `500 11.5px ${FONT}`;
    g.textBaseline = 'middle';
    g.textAlign = 'left';
    g.fillText(fit(g, node.name, b.w - 36, 11.5), b.x + 28, b.y + b.h / 2 + 0.5);
  }

  /** What the selection or the pointer brings out. */
  bright(): void {
    const { g, s, ink } = this, n = s.bright.length;
    for (const r of s.bright) {
      const path = new Path2D(), mixed = r.n[ALLOWED] > 0 && r.worst < ALLOWED, base = widthOf(r, s.cluster.traffic);
      trace(path, r);
      g.lineJoin = 'round';
      if (r === s.chosen) {
        g.strokeStyle = ink.accent;
        g.globalAlpha = 0.28;
        g.lineWidth = 11 * this.z;
        g.stroke(path);
        g.globalAlpha = 1;
      }
      g.strokeStyle = ink.stroke[strokeOf(r)];
      g.lineWidth = (n > 60 ? 1.4 : Math.min(n > 12 ? 2.2 : 4, base + 0.6)) * this.z;
      g.setLineDash(this.dash(strokeOf(r)));
      g.stroke(path);
      if (mixed) { // its stripe of dashes
        g.save();
        g.translate(0, 3);
        g.strokeStyle = ink.stroke[r.worst];
        g.lineWidth = 2 * this.z;
        g.setLineDash(this.dash(r.worst));
        g.stroke(path);
        g.restore();
      }
      g.setLineDash([]);
      this.arrow(r, ink.stroke[strokeOf(r)]);
    }
    if (n < 60) for (const r of s.bright) if (r.n[DENIED] || r.n[AUDIT]) this.mark(r);
  }

  /** Pairs that gain are a double line with +, those that lose are dashed with −. */
  changes(list: readonly Change[]): void {
    const { g, ink, z } = this;
    for (const c of list) {
      const colour = ink.stroke[c.lost ? DENIED : ALLOWED], p = c.line;
      g.beginPath();
      g.moveTo(p[0], p[1]);
      g.bezierCurveTo(p[2], p[3], p[4], p[5], p[6], p[7]);
      g.strokeStyle = colour;
      g.lineWidth = (c.lost ? 2.2 : 5) * z;
      g.setLineDash(c.lost ? this.dash(DENIED) : []);
      g.stroke();
      g.setLineDash([]);
      if (!c.lost) {
        g.strokeStyle = ink.canvas;
        g.lineWidth = 1.6 * z;
        g.stroke();
      }
      this.arrow({ line: p } as Route, colour);
      const x = (p[0] + 3 * p[2] + 3 * p[4] + p[6]) / 8, y = (p[1] + 3 * p[3] + 3 * p[5] + p[7]) / 8, r = 7 * z;
      g.beginPath();
      g.arc(x, y, r, 0, 7);
      g.fillStyle = ink.canvas;
      g.fill();
      g.strokeStyle = colour;
      g.lineWidth = 1.4 * z;
      g.stroke();
      g.beginPath();
      g.moveTo(x - r / 2, y);
      g.lineTo(x + r / 2, y);
      if (c.gained) {
        g.moveTo(x, y - r / 2);
        g.lineTo(x, y + r / 2);
      }
      g.stroke();
      if (!c.label) continue;
      g.font = `600 ${11.5 * z}px ${FONT}`;
      g.textBaseline = 'middle';
      g.lineWidth = 3 * z;
      g.strokeStyle = ink.canvas;
      g.strokeText(c.label, x + r + 3 * z, y);
      g.fillStyle = colour;
      g.fillText(c.label, x + r + 3 * z, y);
    }
  }

  rings(): void {
    const { g, s, ink } = this;
    for (const [rep, dashed] of [[s.selected, false], [s.focused, true]] as const) {
      if (rep === undefined || dashed && rep === s.selected) continue;
      const b = boxOf(s.sheet, rep);
      if (!b) continue;
      rounded(g, { x: b.x - 3, y: b.y - 3, w: b.w + 6, h: b.h + 6 }, rep < 0 ? 12 : 8);
      g.strokeStyle = dashed ? ink.text : ink.accent;
      g.lineWidth = 2.2 / Math.min(1, this.k);
      g.setLineDash(dashed ? [4, 3] : []);
      g.stroke();
      g.setLineDash([]);
    }
  }
}

function bounds(p: readonly number[]): Box {
  let x0 = Infinity, y0 = Infinity, x1 = -Infinity, y1 = -Infinity;
  for (let i = 0; i < p.length; i += 2) {
    x0 = Math.min(x0, p[i]);
    x1 = Math.max(x1, p[i]);
    y0 = Math.min(y0, p[i + 1]);
    y1 = Math.max(y1, p[i + 1]);
  }
  return { x: x0 - 1, y: y0 - 1, w: x1 - x0 + 2, h: y1 - y0 + 2 };
}

function trace(path: Path2D, r: Route): void {
  const p = r.line;
  path.moveTo(p[0], p[1]);
  if (r.curve) {
    path.bezierCurveTo(p[2], p[3], p[4], p[5], p[6], p[7]);
    return;
  }
  for (let i = 2; i + 3 < p.length; i += 2) {
    const before = Math.abs(p[i] - p[i - 2]) + Math.abs(p[i + 1] - p[i - 1]), after = Math.abs(p[i + 2] - p[i]) + Math.abs(p[i + 3] - p[i + 1]);
    path.arcTo(p[i], p[i + 1], p[i + 2], p[i + 3], Math.min(9, before / 2, after / 2));
  }
  path.lineTo(p[p.length - 2], p[p.length - 1]);
}

function rounded(g: Pen, b: Box, r: number): void {
  g.beginPath();
  g.roundRect(b.x, b.y, b.w, b.h, r);
}

/** Isolation: the left half is filled for ingress, the right one for egress. Of what is outside there is a globe. */
function disc(g: Pen, x: number, y: number, n: { ns: number; ingress: number; egress: number }, ink: Ink): void {
  g.strokeStyle = g.fillStyle = ink.soft;
  g.lineWidth = 1.2;
  g.beginPath();
  g.arc(x, y, 4.6, 0, 7);
  g.stroke();
  if (n.ns < 0) {
    g.beginPath();
    g.moveTo(x - 4.6, y);
    g.lineTo(x + 4.6, y);
    g.stroke();
    return;
  }
  if (n.ingress) half(g, x, y, 1, n.ingress === 2);
  if (n.egress) half(g, x, y, -1, n.egress === 2);
}

function half(g: Pen, x: number, y: number, side: 1 | -1, some: boolean): void {
  const before = g.globalAlpha;
  if (some) g.globalAlpha = before / 2;
  g.beginPath();
  g.arc(x, y, 4.6, (side * Math.PI) / 2, (-side * Math.PI) / 2);
  g.fill();
  g.globalAlpha = before;
}

function chevron(g: Pen, x: number, y: number, colour: string, down: boolean): void {
  g.strokeStyle = colour;
  g.lineWidth = 1.6;
  g.beginPath();
  const points = down ? [[-4, -2], [0, 2], [4, -2]] : [[-2, -4], [2, 0], [-2, 4]];
  points.forEach(([dx, dy], i) => (i ? g.lineTo(x + dx, y + dy) : g.moveTo(x + dx, y + dy)));
  g.stroke();
}

function sign(g: Pen, v: number, x: number, y: number, s: number, colour: string): void {
  g.strokeStyle = g.fillStyle = colour;
  g.lineWidth = s * 0.62;
  g.beginPath();
  if (v === DENIED) {
    g.moveTo(x - s, y - s);
    g.lineTo(x + s, y + s);
    g.moveTo(x + s, y - s);
    g.lineTo(x - s, y + s);
    g.stroke();
    return;
  }
  g.moveTo(x, y - s * 1.15);
  g.lineTo(x + s * 1.15, y + s);
  g.lineTo(x - s * 1.15, y + s);
  g.closePath();
  g.fill();
}

const fits = new Map<string, string>();
/** A name without control characters, cut with … to a width. */
function fit(g: Pen, name: string, width: number, size: number): string {
  const key = `${size} ${width} ${name}`;
  let out = fits.get(key);
  if (out !== undefined) return out;
  out = plain(name);
  if (g.measureText(out).width > width) {
    let lo = 0, hi = Math.min(out.length, 400);
    while (lo < hi) {
      const mid = (lo + hi + 1) >> 1;
      if (g.measureText(out.slice(0, mid) + '…').width <= width) lo = mid;
      else hi = mid - 1;
    }
    out = out.slice(0, lo) + '…';
  }
  if (fits.size > 20000) fits.clear();
  fits.set(key, out);
  return out;
}

/** Namespace or node under a point of the sheet. */
export function hit(s: Scene, x: number, y: number): Rep | undefined {
  const inside = (b: Box | undefined) => !!b && x >= b.x && x <= b.x + b.w && y >= b.y && y <= b.y + b.h;
  const plate = s.sheet.plates.findIndex(inside);
  if (plate >= 0) return plate;
  const ns = s.sheet.boxes.findIndex(inside);
  return ns >= 0 ? repOfNs(ns) : undefined;
}

/** Route near a point, within so many units. */
export function hitRoute(s: Scene, x: number, y: number, within: number, g: Pen): Route | undefined {
  g.save();
  g.setTransform(1, 0, 0, 1, 0, 0);
  g.lineWidth = 2 * within;
  g.setLineDash([]);
  const near = [...s.bright, ...(s.near.size ? [] : s.drawn.routes)].find(r => {
    if (r.quiet && !s.bright.includes(r)) return false;
    const b = bounds(r.line);
    if (x < b.x - within || y < b.y - within || x > b.x + b.w + within || y > b.y + b.h + within) return false;
    const path = new Path2D();
    trace(path, r);
    return g.isPointInStroke(path, x, y);
  });
  g.restore();
  return near;
}

export const isNs = (r: Rep) => r < 0;
export const nsName = (s: Scene, r: Rep) => s.cluster.namespaces[nsOfRep(r)];
