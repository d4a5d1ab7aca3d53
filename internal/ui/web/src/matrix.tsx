// All pairs as a matrix: of workloads in a small cluster, of namespaces in a large one. A true table, with one cell in the order of Tab.
import { Component } from 'preact';
import { useMemo, useRef, useState } from 'preact/hooks';
import { edgeId, MARK, portsOf, VERDICTS, WORD, type Cluster } from './model.ts';
import { NoMatch } from './parts.tsx';
import { repOfNs, type Rep } from './routes.ts';
import * as s from './state.ts';
import { count, plain } from './text.ts';

const MOST_WORKLOADS = 40, MOST_NAMESPACES = 40;
/** Edges of a cell by stroke, how many they are, and the first of them. */
interface Cell { n: [number, number, number, number]; size: number; first: number }

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
      const a = index.get(rep(c.source[i]))!, b = index.get(rep(c.destination[i]))!, cell = (cells[a][b] ??= { n: [0, 0, 0, 0], size: 0, first: i });
      cell.n[c.stroke[i]]++;
      cell.size++;
    }
    const texts = cells.map(row => reps.map((_, j) => (row[j] ? row[j].n.join() + (row[j].size === 1 ? ':' + row[j].first : '') : '')).join(' '));
    return { reps, cells, byNode, texts, columns: reps.join() };
  }, [c, f, slots]);
  if (!c || !data) return <div class="scroll" />;
  if (!f?.edges.length) return <div class="scroll"><NoMatch /></div>;
  const tiny = data.reps.length > MOST_NAMESPACES + 1, label = (r: Rep) => labelOf(c, r), names = data.reps.map(label);
  const idOf = (i: number, j: number) => {
    const cell = data.cells[i][j], [a, b] = [data.reps[i], data.reps[j]];
    return cell && (data.byNode ? edgeId(c, cell.first) : i === j ? undefined : s.repName(c, a) + '>' + s.repName(c, b));
  };
  const cellOf = (e: Event) => (e.target as HTMLElement).closest<HTMLElement>('td[data-at]')?.dataset.at?.split(',').map(Number) as [number, number] | undefined;
  const pick = (e: Event) => {
    const found = cellOf(e);
    if (found) open(c, data.reps[found[0]], data.reps[found[1]], data.cells[found[0]][found[1]], idOf(...found));
  };
  const keys = (e: KeyboardEvent) => {
    if (e.key === 'Enter') return pick(e);
    const step = ({ ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] } as Record<string, [number, number]>)[e.key];
    if (!step) return;
    e.preventDefault();
    const clamp = (n: number) => Math.max(0, Math.min(data.reps.length - 1, n)), next: [number, number] = [clamp(at[0] + step[0]), clamp(at[1] + step[1])];
    move(next);
    table.current?.querySelector<HTMLElement>(`[data-at="${next.join()}"]`)?.focus();
  };
  const chosen = s.address.value.selected;
  return (
    <div class={`scroll matrix ${tiny ? 'tiny' : ''} ${data.byNode ? 'byNode' : ''}`}>
      <table role="grid" ref={table} onKeyDown={keys} onClick={pick} onFocusIn={e => move(now => cellOf(e) ?? now)} aria-label="Who may talk to whom: rows are sources, columns are destinations">
        <thead>
          <tr><td class="corner">from ↓ to →</td>{names.map(name => <th scope="col" title={name}><span>{cut(name)}</span></th>)}</tr>
        </thead>
        <tbody>
          {data.reps.map((a, i) => (
            <Row key={a} c={c} i={i} names={names} cells={data.cells[i]} text={data.texts[i]} at={at[0] === i ? at[1] : -1} chosen={chosen ? data.reps.findIndex((_, j) => idOf(i, j) === chosen) : -1}
              byNode={data.byNode} tiny={tiny} columns={data.columns} />
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

interface RowProps { c: Cluster; i: number; names: string[]; cells: (Cell | undefined)[]; text: string; at: number; chosen: number; byNode: boolean; tiny: boolean; columns: string }

/** Ten thousand cells are not compared with what they were: a row that shows the same is left alone. */
class Row extends Component<RowProps> {
  shouldComponentUpdate(next: RowProps): boolean {
    const now = this.props;
    return next.text !== now.text || next.at !== now.at || next.chosen !== now.chosen || next.c !== now.c || next.i !== now.i || next.columns !== now.columns;
  }
  render({ c, i, names, cells, at, chosen, byNode, tiny }: RowProps) {
    return (
      <tr>
        <th scope="row" title={names[i]}>{cut(names[i])}</th>
        {names.map((name, j) => {
          const cell = cells[j], worst = cell ? VERDICTS.findIndex((_, v) => cell.n[v]) : -1;
          return (
            <td data-at={`${i},${j}`} tabIndex={at === j ? 0 : -1} aria-label={words(c, names[i], name, cell)}
              class={`${cell ? 'has ' + VERDICTS[worst] + ' l' + level(cell.n[2]) : ''} ${i === j ? 'self' : ''} ${chosen === j ? 'chosen' : ''}`}>
              {cell && !tiny && <Content cell={cell} byNode={byNode} c={c} />}
            </td>
          );
        })}
      </tr>
    );
  }
}

function Content({ cell, byNode, c }: { cell: Cell; byNode: boolean; c: Cluster }) {
  if (byNode) {
    const ports = portsOf(c, cell.first), open = ports.filter(p => p.code !== 1 && p.code !== 5);
    const v = c.stroke[cell.first];
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
  if (cell.size === 1) parts.push('ports ' + portsOf(c, cell.first).map(p => p.port || 'other').join(', '));
  return `${a} to ${b}: ${parts.join(', ')}`;
}
