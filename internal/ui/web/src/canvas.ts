// The canvas of the map: camera, pointer, and when to paint. While the map moves the last picture is moved, unless painting is fast.
import { effect } from '@preact/signals';
import { hit, hitRoute, paint, type Camera, type Ink, type Scene } from './painter.ts';
import { boxOf, type Rep, type Route } from './routes.ts';
import type { Box, Sheet } from './sheet.ts';

const MARGIN = 160, REST = 90, FAST = 9, LEAST = 0.05, MOST = 2.5;

export interface Pointer {
  hover(r: Rep | undefined): void;
  click(r: Rep | Route | undefined): void;
  open(r: Rep): void;
}

export class MapCanvas {
  camera: Camera = { x: 0, y: 0, k: 1 };
  painted = 0;
  private pen: CanvasRenderingContext2D;
  private picture = document.createElement('canvas');
  private pictured: Camera = { x: 0, y: 0, k: 1 };
  private width = 0;
  private height = 0;
  private asked = 0;
  private stale = true;
  private cost = 0;
  private moved = 0;
  private rest = 0;
  private fitted = false;
  private scene: Scene | undefined;
  private stop: (() => void)[] = [];

  constructor(private canvas: HTMLCanvasElement, scene: () => Scene | undefined, private ink: () => Ink, private pointer: Pointer) {
    this.pen = canvas.getContext('2d')!;
    const size = new ResizeObserver(() => this.resize());
    size.observe(canvas);
    this.stop.push(() => size.disconnect());
    this.stop.push(effect(() => {
      const before = this.scene;
      this.scene = scene();
      if (this.scene && !this.fitted) this.fit();
      else if (before && this.scene && before.sheet !== this.scene.sheet) this.hold(before.sheet, this.scene.sheet);
      this.stale = true;
      this.request();
    }));
    this.listen();
    this.resize();
  }

  destroy(): void {
    cancelAnimationFrame(this.asked);
    clearTimeout(this.rest);
    for (const f of this.stop) f();
  }

  repaint(): void {
    this.stale = true;
    this.request();
  }

  private resize(): void {
    const r = this.canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    if (!r.width || !r.height) return;
    this.width = r.width;
    this.height = r.height;
    this.canvas.width = Math.round(r.width * ratio);
    this.canvas.height = Math.round(r.height * ratio);
    this.picture.width = Math.round((r.width + 2 * MARGIN) * ratio);
    this.picture.height = Math.round((r.height + 2 * MARGIN) * ratio);
    if (this.scene && !this.fitted) this.fit();
    this.repaint();
  }

  /** Everything in sight. */
  fit(): void {
    const s = this.scene?.sheet;
    if (!s || !this.width) return;
    const top = 56, bottom = 68; // the note and the tools
    const k = Math.max(LEAST, Math.min(1.15, (this.width - 48) / s.width, (this.height - top - bottom) / s.height));
    this.camera = { k, x: (this.width - s.width * k) / 2, y: top + (this.height - top - bottom - s.height * k) / 2 };
    this.fitted = true;
    this.request();
  }

  /** What was opened or closed stays where the eye is. */
  private anchor: Rep | undefined;
  holding(r: Rep): void {
    this.anchor = r;
  }
  private hold(before: Sheet, after: Sheet): void {
    const r = this.anchor, a = r === undefined ? before.outside ?? before.boxes[0] : boxOf(before, r), b = r === undefined ? after.outside ?? after.boxes[0] : boxOf(after, r);
    this.anchor = undefined;
    if (!a || !b) return;
    const { k } = this.camera;
    this.camera = { k, x: this.camera.x + (a.x + a.w / 2 - b.x - b.w / 2) * k, y: this.camera.y + (a.y - b.y) * k };
  }

  zoom(factor: number, x = this.width / 2, y = this.height / 2): void {
    const c = this.camera, k = Math.max(LEAST, Math.min(MOST, c.k * factor)), f = k / c.k;
    this.move({ k, x: x - (x - c.x) * f, y: y - (y - c.y) * f });
  }

  pan(dx: number, dy: number): void {
    this.move({ ...this.camera, x: this.camera.x + dx, y: this.camera.y + dy });
  }

  /** Bring a box into sight, without more movement than that takes. */
  show(b: Box): void {
    const { k, x, y } = this.camera, left = b.x * k + x, top = b.y * k + y, m = 24;
    const nudge = (from: number, size: number, room: number) => (from < m ? m - from : from + size > room - m ? room - m - from - size : 0);
    const dx = nudge(left, b.w * k, this.width), dy = nudge(top, b.h * k, this.height);
    if (dx || dy) this.pan(dx, dy);
  }

  private move(c: Camera): void {
    this.camera = c;
    this.moved = performance.now();
    this.request();
    clearTimeout(this.rest);
    this.rest = window.setTimeout(() => this.repaint(), REST);
  }

  private request(): void {
    if (!this.asked) this.asked = requestAnimationFrame(() => this.frame());
  }

  private frame(): void {
    this.asked = 0;
    const s = this.scene, ratio = devicePixelRatio || 1;
    if (!s || !this.width) return;
    const moving = performance.now() - this.moved < REST;
    if (this.stale && !moving || !this.painted || this.cost < FAST || this.stale && this.sceneOf !== s) {
      const from = performance.now(), pen = this.picture.getContext('2d')!;
      this.pictured = { ...this.camera };
      paint(pen, s, { k: this.camera.k, x: this.camera.x + MARGIN, y: this.camera.y + MARGIN }, this.width + 2 * MARGIN, this.height + 2 * MARGIN, ratio, this.ink());
      this.cost = performance.now() - from;
      this.sceneOf = s;
      this.stale = false;
      this.painted++;
    }
    const f = this.camera.k / this.pictured.k;
    this.pen.setTransform(1, 0, 0, 1, 0, 0);
    this.pen.fillStyle = this.ink().canvas;
    this.pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.pen.setTransform(ratio * f, 0, 0, ratio * f, ratio * (this.camera.x - this.pictured.x * f), ratio * (this.camera.y - this.pictured.y * f));
    this.pen.drawImage(this.picture, -MARGIN, -MARGIN, this.width + 2 * MARGIN, this.height + 2 * MARGIN);
    if (document.documentElement.dataset.ready) return;
    document.documentElement.dataset.ready = 'yes';
    performance.mark('map painted');
  }
  private sceneOf: Scene | undefined;

  private at(e: MouseEvent): [number, number] {
    const r = this.canvas.getBoundingClientRect(), c = this.camera;
    return [(e.clientX - r.left - c.x) / c.k, (e.clientY - r.top - c.y) / c.k];
  }

  /** What is under the pointer; a click near a line is the line's. */
  private under(e: MouseEvent): Rep | Route | undefined {
    const s = this.scene;
    if (!s) return undefined;
    const [x, y] = this.at(e), rep = hit(s, x, y), plate = rep !== undefined && rep >= 0, closed = rep !== undefined && rep < 0 && !s.open.has(-1 - rep);
    if (plate || closed) return rep;
    return hitRoute(s, x, y, 5 / this.camera.k, this.pen) ?? rep;
  }

  private listen(): void {
    const c = this.canvas;
    let from: { x: number; y: number; camera: Camera; far: boolean } | undefined;
    const on = <K extends keyof HTMLElementEventMap>(type: K, f: (e: HTMLElementEventMap[K]) => void, o?: AddEventListenerOptions) => {
      c.addEventListener(type, f, o);
      this.stop.push(() => c.removeEventListener(type, f));
    };
    on('pointerdown', e => {
      if (e.button) return;
      c.setPointerCapture(e.pointerId);
      from = { x: e.clientX, y: e.clientY, camera: this.camera, far: false };
    });
    on('pointermove', e => {
      if (!from) {
        const under = this.under(e);
        this.pointer.hover(typeof under === 'number' ? under : undefined);
        c.style.cursor = under === undefined ? 'grab' : 'pointer';
        return;
      }
      const dx = e.clientX - from.x, dy = e.clientY - from.y;
      from.far ||= Math.hypot(dx, dy) > 4;
      if (from.far) this.move({ ...from.camera, x: from.camera.x + dx, y: from.camera.y + dy });
    });
    on('pointerup', e => {
      const far = from?.far ?? true;
      from = undefined;
      if (!far) this.click(e);
    });
    on('pointercancel', () => (from = undefined));
    on('pointerleave', () => this.pointer.hover(undefined));
    on('dblclick', e => {
      const under = this.under(e);
      if (typeof under === 'number') this.pointer.open(under);
    });
    on('wheel', e => {
      e.preventDefault();
      const r = c.getBoundingClientRect(), unit = e.deltaMode === 1 ? 16 : 1;
      this.zoom(Math.exp(-e.deltaY * unit * 0.0016), e.clientX - r.left, e.clientY - r.top);
    }, { passive: false });
  }

  private click(e: MouseEvent): void {
    const s = this.scene, under = this.under(e);
    if (s && typeof under === 'number' && under < 0) { // the arrow of a namespace opens it
      const b = boxOf(s.sheet, under)!, [x, y] = this.at(e), head = s.open.has(-1 - under) ? 28 : 40;
      if (x > b.x + b.w - 34 && y < b.y + head) return this.pointer.open(under);
    }
    this.pointer.click(under);
  }
}
