// The order of things on the sheet, by the layered layout of @dagrejs/dagre. It is computed from what policies allow, not from traffic, and in a
// worker: it gets small questions and gives small answers.
import * as dagre from '@dagrejs/dagre';

export interface Question {
  names: string[];
  /** Pairs of namespaces, and how many edges each has. */
  pairs: [number, number, number][];
  /** Small namespaces: their nodes, and pairs of positions among them. */
  inner: { ns: number; names: string[]; pairs: [number, number][] }[];
}
export interface Order {
  /** Columns of namespaces. */
  slots: number[][];
  /** For a small namespace, the order of its nodes from callers to callees. Undefined until it is known: closed namespaces do not need it. */
  inner?: [number, number[]][];
}

/** What the worker is asked, and each of its two answers: first without the order inside of namespaces. */
export interface Asked { id: number; question: Question }
export interface Answer { id: number; order: Order }

const graph = () => {
  const g = new dagre.graphlib.Graph();
  g.setGraph({ rankdir: 'LR', ranker: 'network-simplex' });
  g.setDefaultEdgeLabel(() => ({}));
  return g;
};

/** Positions by rank, then within the rank. */
function ranked(names: string[], edges: Iterable<[number, number]>): number[] {
  const g = graph();
  const byName = names.map((_, i) => i).sort((a, b) => (names[a] < names[b] ? -1 : 1)); // the input's order must not matter
  for (const i of byName) g.setNode(String(i), { width: 10, height: 10 });
  for (const [a, b] of edges) if (a !== b) g.setEdge(String(a), String(b));
  dagre.layout(g);
  const at = (i: number) => g.node(String(i)) as unknown as { x: number; y: number };
  return byName.sort((a, b) => at(a).x - at(b).x || at(a).y - at(b).y || (names[a] < names[b] ? -1 : 1));
}

/** The order of namespaces. */
export function outer(q: Question): Order {
  const weight = new Map(q.pairs.map(([a, b, n]) => [a * 65536 + b, n]));
  // Of each pair the stronger direction, and of each namespace the two strongest: one edge more or less does not turn the picture.
  const strong = q.pairs.filter(([a, b, n]) => n > 1.5 * (weight.get(b * 65536 + a) ?? 0))
    .sort((x, y) => y[2] - x[2] || (q.names[x[0]] + q.names[x[1]] < q.names[y[0]] + q.names[y[1]] ? -1 : 1));
  const used = new Map<number, number>(), edges: [number, number][] = [];
  for (const [a, b] of strong) {
    const n = used.get(a) ?? 0;
    if (n < 2) {
      used.set(a, n + 1);
      edges.push([a, b]);
    }
  }
  const list = ranked(q.names, edges);
  const columns = Math.max(1, Math.ceil(Math.sqrt(list.length * 0.8))), height = Math.ceil(list.length / columns);
  const slots: number[][] = [];
  for (let i = 0; i < list.length; i += height) slots.push(list.slice(i, i + height));
  return { slots };
}

/** The order of namespaces, and of workloads inside small ones. */
export const order = (q: Question, known = outer(q)): Required<Order> => ({ ...known, inner: q.inner.map(x => [x.ns, ranked(x.names, x.pairs)]) });
