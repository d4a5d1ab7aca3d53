// The map as a graph: a canvas, its tools, and its keyboard.
import { useEffect, useRef } from 'preact/hooks';
import { effect } from '@preact/signals';
import { MapCanvas } from './canvas.ts';
import type { Ink } from './painter.ts';
import { boxOf, nsOfRep, repOfNs, type Rep } from './routes.ts';
import * as s from './state.ts';
import { count, plain, plural } from './text.ts';
import { theme } from './theme.ts';
import { edgeId, worstFirst, WORD, VERDICTS } from './model.ts';

let live: MapCanvas | undefined;

function ink(): Ink {
  const style = getComputedStyle(document.documentElement), v = (name: string) => style.getPropertyValue('--' + name).trim();
  return {
    canvas: v('canvas'), box: v('box'), boxLine: v('box-line'), plate: v('plate'), plateLine: v('plate-line'), text: v('text'), soft: v('soft'), accent: v('accent'),
    stroke: [v('denied'), v('audit'), v('allowed'), v('unused')],
  };
}

export function Graph() {
  const ref = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    let colours = ink();
    const c = new MapCanvas(ref.current!, () => s.scene.value, () => colours, {
      hover: r => (s.hovered.value = r),
      click: under => {
        if (under === undefined) {
          if (s.address.value.selected) s.go({ selected: '' }, true);
        } else if (typeof under === 'number') {
          s.focused.value = undefined;
          s.selectRep(under);
        } else {
          const c = s.cluster.value!;
          s.select(under.size === 1 ? edgeId(c, under.first) : s.repName(c, under.a) + '>' + s.repName(c, under.b));
        }
      },
      open: r => toggle(r),
    });
    live = c;
    const stop = effect(() => {
      theme.value;
      colours = ink();
      c.repaint();
    });
    expose(c);
    return () => {
      stop();
      c.destroy();
      live = undefined;
    };
  }, []);
  const c = s.cluster.value, d = s.drawn.value;
  const shown = d ? d.routes.length - d.quiet : 0;
  return (
    <div class="stage">
      <canvas id="map" ref={ref} tabIndex={0} role="application" aria-roledescription="map" aria-describedby="map-keys"
        aria-label={c ? `${plural(c.namespaces.length, 'namespace')}, ${plural(c.nodes.length - c.outside.length, 'workload')}, ${plural(s.filtered.value?.edges.length ?? 0, 'connection')}. The same as a table: press T.` : 'Loading'}
        onKeyDown={keyboard} onBlur={() => (s.focused.value = undefined)} />
      <p id="map-keys" class="sr">Arrows move to the next thing. Space opens and closes a namespace. Page Down goes into it, Page Up out. Enter selects. N and P go through connections.</p>
      {d && d.quiet > 0 && (
        <p class="note">{`The ${shown} strongest of ${count(d.routes.length)} routes are drawn. Point at a namespace for all of its own. `}
          <button class="link" onClick={() => s.go({ form: 'matrix' }, true)}>All as a matrix</button></p>
      )}
      <div class="tools" role="group" aria-label="Map">
        <button onClick={() => live?.zoom(1.25)} aria-label="Larger">+</button>
        <button onClick={() => live?.zoom(0.8)} aria-label="Smaller">−</button>
        <button onClick={() => live?.fit()} aria-label="Show all">⤢</button>
        <button class="wide" onClick={openAll}>{c && s.open.value.size === c.namespaces.length ? 'Close all' : 'Open all'}</button>
        <button class="wide" aria-pressed={s.every.value} onClick={() => s.go({ every: !s.every.value })}>Every edge</button>
        <button class="wide" onClick={() => confirm('Give all namespaces new places? The map will look different.') && (s.tidy(), live?.fit())}>Tidy</button>
      </div>
    </div>
  );
}

function openAll(): void {
  const c = s.cluster.value!;
  s.go({ open: s.open.value.size === c.namespaces.length ? [] : c.namespaces });
  live?.fit();
}

export function toggle(r: Rep): void {
  const c = s.cluster.value!, ns = r < 0 ? nsOfRep(r) : c.nodes[r].ns;
  if (ns < 0) return;
  live?.holding(repOfNs(ns));
  s.toggle(ns);
}

/** One sentence about a thing, for those who hear the map. */
export function describe(r: Rep): string {
  const c = s.cluster.value!, d = s.drawn.value;
  if (r < 0) {
    const ns = nsOfRep(r), inner = d?.inner[ns];
    return [plain(c.namespaces[ns]), 'namespace', plural(c.members[ns].length, 'workload'), s.open.value.has(ns) ? 'open' : 'closed',
      inner?.[0] ? `${inner[0]} denied inside` : '', inner?.[1] ? `${inner[1]} would be denied inside` : ''].filter(Boolean).join(', ');
  }
  const n = c.nodes[r], isolated = [n.ingress && 'ingress', n.egress && 'egress'].filter(Boolean).join(' and ');
  return [plain(n.name), n.ns < 0 ? 'outside the cluster' : n.kind, n.ns < 0 ? '' : isolated ? `isolated for ${isolated}` : 'not isolated',
    `${plural(c.in[r].length, 'connection')} in, ${c.out[r].length} out`].filter(Boolean).join(', ');
}

function focus(r: Rep): void {
  s.focused.value = r;
  s.spoken.value = describe(r);
  const b = s.layout.value && boxOf(s.layout.value, r);
  if (b) live?.show(b);
}

/** The next thing in a direction: of the same level, near and straight ahead. */
function next(dx: number, dy: number): Rep | undefined {
  const c = s.cluster.value!, l = s.layout.value!, now = s.focused.value;
  const inside = now !== undefined && now >= 0 && c.nodes[now].ns >= 0 ? c.nodes[now].ns : -1;
  const things: Rep[] = inside >= 0 ? c.members[inside].map(n => n.index) : [...c.namespaces.keys()].map(repOfNs).concat(c.outside.map(n => n.index));
  if (now === undefined) return things[0];
  const b = boxOf(l, now)!, x = b.x + b.w / 2, y = b.y + b.h / 2;
  let best: Rep | undefined, least = Infinity;
  for (const r of things) {
    const o = r === now ? undefined : boxOf(l, r);
    if (!o) continue;
    const ox = o.x + o.w / 2 - x, oy = o.y + o.h / 2 - y, ahead = ox * dx + oy * dy, aside = Math.abs(ox * dy) + Math.abs(oy * dx);
    if (ahead > 4 && ahead + 2.5 * aside < least) {
      best = r;
      least = ahead + 2.5 * aside;
    }
  }
  return best;
}

const ARROWS: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function keyboard(e: KeyboardEvent): void {
  if (!s.cluster.value || !s.layout.value || e.ctrlKey || e.metaKey || e.altKey) return;
  const c = s.cluster.value, now = s.focused.value, arrow = ARROWS[e.key];
  if (arrow) {
    e.preventDefault();
    if (e.shiftKey) return live?.pan(-arrow[0] * 60, -arrow[1] * 60);
    const r = next(...arrow);
    if (r !== undefined) focus(r);
    return;
  }
  switch (e.key) {
    case ' ':
      e.preventDefault();
      if (now !== undefined) {
        const ns = now < 0 ? nsOfRep(now) : c.nodes[now].ns;
        toggle(now);
        if (ns >= 0) focus(repOfNs(ns));
      }
      return;
    case 'PageDown':
      e.preventDefault();
      if (now !== undefined && now < 0) {
        const ns = nsOfRep(now);
        if (!s.open.value.has(ns)) toggle(now);
        if (c.members[ns].length) focus(c.members[ns][0].index);
      }
      return;
    case 'PageUp':
      e.preventDefault();
      if (now !== undefined && now >= 0 && c.nodes[now].ns >= 0) focus(repOfNs(c.nodes[now].ns));
      return;
    case 'Enter':
      if (now !== undefined) s.selectRep(now);
      return;
    case 'n': case 'N': return connection(1);
    case 'p': case 'P': return connection(-1);
    case '+': case '=': return live?.zoom(1.25);
    case '-': return live?.zoom(0.8);
    case '0': return live?.fit();
  }
}

/** Connections of what has the focus, one after another; the worst first. */
export function connection(step: number): void {
  const c = s.cluster.value!, f = s.filtered.value!, of = s.focused.value ?? (s.selection.value.kind === 'node' ? s.selection.value.node : undefined);
  const within = (node: number) => of === undefined || (of < 0 ? c.nodes[node].ns === nsOfRep(of) : node === of);
  const list = [...worstFirst(c).filter(i => f.mask[i] && (within(c.source[i]) || within(c.destination[i])))];
  if (!list.length) {
    s.spoken.value = 'No connection';
    return;
  }
  const at = list.findIndex(i => edgeId(c, i) === s.address.value.selected), i = list[at < 0 ? (step > 0 ? 0 : list.length - 1) : (at + step + list.length) % list.length];
  s.go({ selected: edgeId(c, i) });
  s.spoken.value = `${WORD[VERDICTS[c.stroke[i]]]}: ${plain(c.nodes[c.source[i]].id)} to ${plain(c.nodes[c.destination[i]].id)}, ${list.indexOf(i) + 1} of ${list.length}`;
}

/** For tests: a canvas has no elements to ask. */
function expose(c: MapCanvas): void {
  const hook = (globalThis as { kidobanTest?: Record<string, unknown> }).kidobanTest;
  if (!hook) return;
  hook.painted = () => c.painted;
  hook.camera = (next?: { x: number; y: number; k: number }) => (next ? c.pan(next.x, next.y) : c.camera);
  hook.zoom = (f: number) => c.zoom(f);
  hook.at = (name: string) => {
    const cl = s.cluster.value!, l = s.layout.value!, node = cl.byId.get(name), ns = cl.nsByName.get(name.replace(/^ns:/, ''));
    const b = node !== undefined ? l.plates[node] : ns !== undefined ? l.boxes[ns] : undefined;
    return b && { x: (b.x + b.w / 2) * c.camera.k + c.camera.x, y: (b.y + b.h / 2) * c.camera.k + c.camera.y };
  };
  hook.places = () => ({
    nodes: s.layout.value!.plates, routes: s.drawn.value!.routes.map(r => ({ a: r.a, b: r.b, line: r.line, curve: r.curve, worst: r.worst })),
  });
  hook.drawn = () => s.drawn.value && { routes: s.drawn.value.routes.length, quiet: s.drawn.value.quiet, inside: s.drawn.value.inside };
}
