// All pairs as a matrix: of workloads in a small cluster, of namespaces in a large one. A true table, with one cell in the order of Tab.
import { useMemo, useRef, useState } from 'preact/hooks';
import { edgeId, MARK, portsOf, VERDICTS, WORD, type Cluster } from './model.ts';
import { NoMatch } from './parts.tsx';
import { repOfNs, type Rep } from './routes.ts';
import * as s from './state.ts';
import { count, plain } from './text.ts';

const MOST_WORKLOADS = 40, MOST_NAMESPACES = 40;
interface Cell { n: [number, number, number, number]; edges: number[] }

export function Matrix() {
  const c = s.cluster.value, f = s.filtered.value, slots = s.layout.value;
  const [at, move] = useState<[number, number]>([0, 0]), table = useRef<HTMLTableElement>(null);
  const data = useMemo(() => {
    if (!c || !f || !slots) return undefined;
    const byNode = c.nodes.length <= MOST_WORKLOADS, order = [...c.namespaces.keys()].sort((a, b) => slots.cell[a][0] - slots.cell[b][0] || slots.cell[a][1] - slots.cell[b][1]);
    const reps: Rep[] = byNode ? order.flatMap(ns => c.members[ns].map(n => n.index)).concat(c.outside.map(n => n.index))
      : order.map(repOfNs).concat(c.outside.length ? [repOfNs(c.namespaces.length)] : []);
    const index = new Map(reps.map((r, i) => [r, i]));
    const rep = (node: number): Rep => (byNode ? node : repOfNs(c.nodes[node].ns < 0 ? c.namespaces.length : c.nodes[node].ns));
    const cells: (Cell | undefined)[][] = reps.map(() => []);
    for (const i of f.edges) {
      const a = index.get(rep(c.source[i]))!, b = index.get(rep(c.destination[i]))!, cell = (cells[a][b] ??= { n: [0, 0, 0, 0], edges: [] });
      cell.n[c.stroke[i]]++;
      cell.edges.push(i);
    }
    return { reps, cells, byNode };
  }, [c, f, slots]);
  if (!c || !data) return <div class="scroll" />;
  if (!f?.edges.length) return <div class="scroll"><NoMatch /></div>;
  const tiny = data.reps.length > MOST_NAMESPACES + 1, label = (r: Rep) => labelOf(c, r);
  const keys = (e: KeyboardEvent) => {
    const step = ({ ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] } as Record<string, [number, number]>)[e.key];
    if (!step) return;
    e.preventDefault();
    const clamp = (n: number) => Math.max(0, Math.min(data.reps.length - 1, n)), next: [number, number] = [clamp(at[0] + step[0]), clamp(at[1] + step[1])];
    move(next);
    table.current?.querySelector<HTMLElement>(`[data-at="${next.join()}"]`)?.focus();
  };
  return (
    <div class={`scroll matrix ${tiny ? 'tiny' : ''} ${data.byNode ? 'byNode' : ''}`}>
      <table role="grid" ref={table} onKeyDown={keys} aria-label="Who may talk to whom: rows are sources, columns are destinations">
        <thead>
          <tr><td class="corner">from ↓ to →</td>{data.reps.map(r => <th scope="col" title={label(r)}><span>{cut(label(r))}</span></th>)}</tr>
        </thead>
        <tbody>
          {data.reps.map((a, i) => (
            <tr>
              <th scope="row" title={label(a)}>{cut(label(a))}</th>
              {data.reps.map((b, j) => {
                const cell = data.cells[i][j], worst = cell ? VERDICTS.findIndex((_, v) => cell.n[v]) : -1;
                const id = cell && (data.byNode ? edgeId(c, cell.edges[0]) : i === j ? undefined : s.repName(c, a) + '>' + s.repName(c, b));
                return (
                  <td data-at={`${i},${j}`} tabIndex={at[0] === i && at[1] === j ? 0 : -1} onFocus={() => move([i, j])}
                    class={`${cell ? 'has ' + VERDICTS[worst] + ' l' + level(cell.n[2]) : ''} ${i === j ? 'self' : ''} ${id && id === s.address.value.selected ? 'chosen' : ''}`}
                    aria-label={words(c, label(a), label(b), cell)}
                    onClick={() => open(c, a, b, cell, id)} onKeyDown={e => e.key === 'Enter' && open(c, a, b, cell, id)}>
                    {cell && !tiny && <Content cell={cell} byNode={data.byNode} c={c} />}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
      <p class="key soft">
        {(['denied', 'audit', 'allowed', 'unused'] as const).map(v => <span><span class={`sign ${v}`}>{MARK[v]}</span> {WORD[v].toLowerCase()}</span>)}
        <span>{data.byNode ? 'with the ports' : 'with the number of pairs of workloads'}</span><span>blank: nothing</span>
      </p>
    </div>
  );
}

function Content({ cell, byNode, c }: { cell: Cell; byNode: boolean; c: Cluster }) {
  if (byNode) {
    const ports = portsOf(c, cell.edges[0]), open = ports.filter(p => p.code !== 1 && p.code !== 5);
    const v = c.stroke[cell.edges[0]];
    return <><i class={`sign ${VERDICTS[v]}`}>{MARK[VERDICTS[v]]}</i><b>{open.length && v ? open.slice(0, 2).map(p => p.port || 'other').join(' ') + (open.length > 2 ? ' …' : '') : ''}</b></>;
  }
  const v = VERDICTS.findIndex((_, i) => cell.n[i]), n = cell.n[v];
  return v === 2 ? <b>{count(n)}</b> : <><i class={`sign ${VERDICTS[v]}`}>{MARK[VERDICTS[v]]}</i><b>{v === 3 ? '' : count(n)}</b></>;
}

/** A route of the outside is that of its nodes: the table has them. */
function open(c: Cluster, a: Rep, b: Rep, cell: Cell | undefined, id: string | undefined): void {
  if (!cell) return;
  const outside = repOfNs(c.namespaces.length);
  if (a === outside || b === outside || a === b) {
    const name = (r: Rep) => (r === outside ? 'outside' : c.namespaces[-1 - r]);
    s.go({ form: 'table', text: a === b ? `from:${name(a)}/ to:${name(b)}/` : `from:${name(a)}${a === outside ? ':' : '/'} to:${name(b)}${b === outside ? ':' : '/'}` }, true);
    return;
  }
  if (id) s.select(id);
}

function labelOf(c: Cluster, r: Rep): string {
  if (r >= 0) return plain(c.nodes[r].id.replace(/^outside:/, ''));
  return -1 - r === c.namespaces.length ? 'outside' : plain(c.namespaces[-1 - r]);
}
const cut = (name: string) => (name.length > 30 ? name.slice(0, 29) + '…' : name);
const level = (n: number) => (n === 0 ? 0 : n < 3 ? 1 : n < 10 ? 2 : n < 40 ? 3 : 4);

function words(c: Cluster, a: string, b: string, cell: Cell | undefined): string {
  if (!cell) return `${a} to ${b}: nothing`;
  const parts = VERDICTS.flatMap((v, i) => (cell.n[i] ? [`${count(cell.n[i])} ${WORD[v].toLowerCase()}`] : []));
  if (cell.edges.length === 1) parts.push('ports ' + portsOf(c, cell.edges[0]).map(p => p.port || 'other').join(', '));
  return `${a} to ${b}: ${parts.join(', ')}`;
}
