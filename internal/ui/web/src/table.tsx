// All connections as a table: the worst first, and the text of the graph for those who do not see it.
import { useEffect, useMemo, useState } from 'preact/hooks';
import { edgeId, portsOf, WORD, worstFirst } from './model.ts';
import { Name, NoMatch, Ports, Sign, strokeName } from './parts.tsx';
import * as s from './state.ts';
import { count, plain, rate } from './text.ts';

const PAGE = 50;
export const ENDS = ['neither end isolated', 'source isolated', 'destination isolated', 'both ends isolated'];

export function Table() {
  const c = s.cluster.value, f = s.filtered.value, [page, turn] = useState(0);
  useEffect(() => turn(0), [f]);
  const rows = useMemo(() => c && f ? [...worstFirst(c).filter(i => f.mask[i])] : [], [c, f]);
  if (!c || !f) return <div class="scroll" />;
  if (!rows.length) return <div class="scroll"><NoMatch /></div>;
  const pages = Math.ceil(rows.length / PAGE), from = Math.min(page, pages - 1) * PAGE;
  return (
    <div class="scroll">
      <table class="list">
        <caption class="sr">{`${count(rows.length)} connections, the worst first`}</caption>
        <thead><tr><th scope="col">Verdict</th><th scope="col">From</th><th scope="col">To</th><th scope="col">Ports</th>
          {c.traffic && <th scope="col" class="right">Per minute</th>}<th scope="col">Isolation</th></tr></thead>
        <tbody>
          {rows.slice(from, from + PAGE).map(i => {
            const v = strokeName(c.stroke[i]), a = c.nodes[c.source[i]], b = c.nodes[c.destination[i]], id = edgeId(c, i);
            return (
              <tr key={id} class={s.address.value.selected === id ? 'chosen' : ''} onClick={() => s.select(id)}>
                <td><Sign v={v} /> {WORD[v]}</td>
                <td><button class="plain" onClick={e => (e.stopPropagation(), s.select(id))} aria-label={`${plain(a.id)} to ${plain(b.id)}`}><Name id={a.id} /></button></td>
                <td><Name id={b.id} /></td>
                <td><Ports ports={portsOf(c, i)} /></td>
                {c.traffic && <td class="right mono">{rate(c.rate[i])}</td>}
                <td class="soft">{ENDS[+!!a.egress + 2 * +!!b.ingress]}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
      <div class="pager">
        <button class="button" disabled={page <= 0} onClick={() => turn(page - 1)}>Previous</button>
        <span>{`${count(from + 1)} to ${count(Math.min(from + PAGE, rows.length))} of ${count(rows.length)}`}</span>
        <button class="button" disabled={page >= pages - 1} onClick={() => turn(page + 1)}>Next</button>
      </div>
    </div>
  );
}
