// One workload: its policies in the order of evaluation, who reaches it, and what it reaches.
import * as api from './api.ts';
import type { Policy } from './api.ts';
import { edgeId, hasDenials, MARK, mayStroke, portsOf, type Cluster, type Node } from './model.ts';
import { Empty, Name, Ports, Sign, strokeName, useAnswer } from './parts.tsx';
import { InForce } from './policies.tsx';
import { Isolation } from './panel.tsx';
import { gapsOf } from './missing.ts';
import { decider, endName, flowKey } from './seenflow.ts';
import * as s from './state.ts';
import { count, plain, plural } from './text.ts';

export function WorkloadView() {
  const c = s.cluster.value, picked = s.selection.value;
  if (!c) return <div class="page" />;
  const node = picked.kind === 'node' ? c.nodes[picked.node] : undefined, workloads = c.nodes.filter(n => n.ns >= 0);
  return (
    <div class="page">
      <label class="chooser">Workload <input list="workloads" value={node?.id ?? ''} placeholder="namespace/name" autocomplete="off"
        onChange={e => c.byId.has(e.currentTarget.value) && s.go({ selected: e.currentTarget.value }, true)} /></label>
      <datalist id="workloads">{workloads.slice(0, 2000).map(n => <option value={n.id} />)}</datalist>
      {node ? <Detail c={c} n={node} /> : (
        <Empty title="Choose a workload"><p>Give its name, or select it on the map and open it from there.</p>
          <p>{workloads.slice(0, 12).map(n => <button class="tag" onClick={() => s.go({ selected: n.id }, true)}>{plain(n.id)}</button>)}</p></Empty>
      )}
    </div>
  );
}

function Detail({ c, n }: { c: Cluster; n: Node }) {
  const sort = (list: number[]) => list.slice().sort((a, b) => Number(c.stroke[a] === 0) - Number(c.stroke[b] === 0) || c.stroke[a] - c.stroke[b] || c.rate[b] - c.rate[a] || a - b);
  const into = sort(c.in[n.index]), out = sort(c.out[n.index]), may = (i: number) => mayStroke(c, i) > 0;
  const asked = n.ns >= 0 && c.live && c.agents, { answer, failure } = useAnswer(async () => (asked ? api.getInForce() : undefined), [c.taken, asked]);
  const own = answer?.workloads[n.id];
  return (
    <>
      <header class="head"><span class="soft">{n.ns < 0 ? 'Outside the cluster' : `${n.kind}, ${plural(n.pods, 'pod')}`}</span><h2><Name id={n.id} /></h2>
        {own && <OnNodes of={own} />}</header>
      {n.ns >= 0 && <Isolation ingress={n.ingress} egress={n.egress} />}
      {failure && <p class="hint warn" role="alert">{`▲ ${plain(failure.message)}`}</p>}
      {asked && answer && <OfPods of={own} />}
      <Drawing c={c} n={n} into={into.filter(may)} out={out.filter(may)} />
      <div class="two">
        <Side c={c} title="In" edges={into} end="source" policies={s.policies.value.filter(p => p.ingress.nodes?.includes(n.index))} of="ingress" inForce={answer} />
        <Side c={c} title="Out" edges={out} end="destination" policies={s.policies.value.filter(p => p.egress.nodes?.includes(n.index))} of="egress" inForce={answer} />
      </div>
      {n.ns >= 0 && c.covered && <Denials key={n.id} c={c} n={n} />}
    </>
  );
}

/** On how many of its pods' nodes the policies of all its pods there are in force. */
function OnNodes({ of }: { of: api.WorkloadInForce }) {
  const late = of.waiting?.length ?? 0;
  return <span class={late ? 'warn' : 'soft'} title={of.waiting?.map(plain).join(', ')}>{`${late ? '▲ ' : ''}in force on ${count(of.nodes.length - late)} of ${plural(of.nodes.length, 'node')}`}</span>;
}

/** What the agents of its pods' nodes report. */
function OfPods({ of: own }: { of: api.WorkloadInForce | undefined }) {
  if (!own) return <p class="hint warn">▲ No agent reports a pod of it: its policies are not known to be in force.</p>;
  const all = own.inForce === own.pods;
  return (
    <p class={all ? '' : 'warn'}>{`${all ? '✔' : '▲'} Its policies are in force for ${count(own.inForce)} of ${plural(own.pods, 'pod')}, on ${own.nodes.map(plain).join(', ')}.`}
      {!!own.audit && <span class="warn">{` ▲ ${plural(own.audit, 'pod')} in audit mode: nothing is denied.`}</span>}</p>
  );
}

const LAST = 20;
/** Recent denials at either of its ends. */
function Denials({ c, n }: { c: Cluster; n: Node }) {
  const since = s.address.value.since;
  const { answer, failure, slow } = useAnswer(() => api.getFlows({ workload: `${c.namespaces[n.ns]}/${n.name}`, verdict: 'Denied', since, limit: String(LAST) }), [c.taken, n.id, since]);
  return (
    <section>
      <h2>Recent denials<span class="tally">{answer ? count(answer.flows.length) : ''}</span>{answer?.coverage.truncated && <span class="soft"> the newest</span>}</h2>
      {answer && gapsOf({ ...answer.coverage, truncated: false }).map(x => <p class="hint warn">{`▲ ${x}`}</p>)}
      {failure && <p class="warn" role="alert">{`▲ ${plain(failure.answered)}`}</p>}
      {slow && <p class="soft">Reading flows …</p>}
      {answer && (answer.flows.length ? (
        <table class="list">
          <thead><tr><th scope="col">Last</th><th scope="col">From</th><th scope="col">To</th><th scope="col">Port</th><th scope="col" class="right">Connections</th><th scope="col">Denied by</th></tr></thead>
          <tbody>{answer.flows.map(f => (
            <tr key={flowKey(f)}>
              <td class="mono">{new Date(f.last).toLocaleString()}</td>
              <td>{f.from && f.to ? <button class="plain" onClick={() => s.go({ view: 'map', selected: `${f.from}>${f.to}` }, true)}><Name id={endName(f.source)} /></button> : <Name id={endName(f.source)} />}</td>
              <td><Name id={endName(f.destination)} /></td><td class="mono">{f.port || ''}{f.protocol === 'TCP' ? '' : `/${f.protocol}`}</td>
              <td class="right mono">{count(f.connections)}</td><td class="soft">{plain(decider(f))}</td>
            </tr>
          ))}</tbody>
        </table>
      ) : <p class="soft">{gapsOf(answer.coverage).length ? 'No denied connection to or from it was recorded in this time.' : 'Nothing to or from it was denied in this time.'}</p>)}
      <div class="actions"><button class="button" onClick={() => s.go({ view: 'flows', text: n.id.toLowerCase(), selected: '' }, true)}>Its flows, as they arrive</button></div>
    </section>
  );
}

interface SideOf { c: Cluster; title: string; edges: number[]; end: 'source' | 'destination'; policies: Policy[]; of: 'ingress' | 'egress'; inForce: api.InForceAnswer | undefined }
function Side({ c, title, edges, end, policies, of, inForce }: SideOf) {
  return (
    <section>
      <h2>{title}</h2>
      <h3>Policies<span class="tally">{count(policies.length)}</span></h3>
      {policies.length ? <ol class="plainList">{policies.map(p => <li><span class="soft">{p.tier}</span> <button class="link" onClick={() => s.go({ view: 'policies', text: `policy:${p.id.replace(/^\S+ /, '')}`, selected: '' }, true)}>{plain(p.id.replace(/^\S+ /, ''))}</button>
        <span class="soft">{` ${plural(p[of].rules, 'rule')}`}{p.audit && ', audit'} </span><InForce of={inForce?.policies[p.id]} /></li>)}</ol> : <p class="soft">{`No policy selects it for ${of}: everything is allowed that the other end allows.`}</p>}
      <h3>Peers<span class="tally">{count(edges.length)}</span></h3>
      {edges.length ? <ul class="peers">{edges.slice(0, 200).map(i => {
        const v = strokeName(c.stroke[i]);
        return <li key={i}><button onClick={() => s.go({ view: 'map', selected: edgeId(c, i) }, true)}><Sign v={v} /><span class="sr">{v}: </span><span class="grow"><Name id={c.nodes[end === 'source' ? c.source[i] : c.destination[i]].id} /></span><Ports ports={portsOf(c, i)} most={3} /></button></li>;
      })}{edges.length > 200 && <li class="more">{`and ${count(edges.length - 200)} more: see Table`}</li>}</ul> : <p class="soft">None.</p>}
    </section>
  );
}

const ROW = 30, MOST = 8;
/** Callers, the workload, and what it calls, in three columns. */
function Drawing({ c, n, into, out }: { c: Cluster; n: Node; into: number[]; out: number[] }) {
  const a = into.slice(0, MOST), b = out.slice(0, MOST), rows = Math.max(a.length, b.length, 1), h = rows * ROW + 24, mid = h / 2;
  const y = (i: number, of: number) => mid + (i - (of - 1) / 2) * ROW;
  const cut = (t: string) => (t.length > 28 ? t.slice(0, 27) + '…' : t);
  const plate = (x: number, at: number, id: string) => <g><rect x={x} y={at - 12} width="200" height="24" rx="6" class="svgPlate" /><text x={x + 10} y={at + 4}>{cut(plain(id.replace(/^outside:/, '')))}</text></g>;
  const line = (i: number, x0: number, y0: number, x1: number, y1: number) => (
    <path class={`svgLine ${strokeName(mayStroke(c, i))}`} d={`M${x0} ${y0}C${x0 + 50} ${y0} ${x1 - 50} ${y1} ${x1} ${y1}`} />
  );
  const mark = (i: number, x: number, at: number) => hasDenials(c, i) && <text class="svgMark" x={x} y={at - 4} text-anchor="middle">{MARK.denied}</text>;
  const partly = [...into, ...out].filter(i => hasDenials(c, i)).length;
  return (
    <svg class="drawing" viewBox={`-1 0 802 ${h}`} width="802" height={h} role="img" aria-label={`${into.length} callers, ${out.length} called${partly ? `, ${partly} of them with denied connections` : ''}`}>
      {a.map((i, k) => line(i, 200, y(k, a.length), 300, mid))}
      {b.map((i, k) => line(i, 500, mid, 600, y(k, b.length)))}
      {a.map((i, k) => plate(0, y(k, a.length), c.nodes[c.source[i]].id))}
      {b.map((i, k) => plate(600, y(k, b.length), c.nodes[c.destination[i]].id))}
      {a.map((i, k) => mark(i, 212, y(k, a.length)))}
      {b.map((i, k) => mark(i, 588, y(k, b.length)))}
      {plate(300, mid, n.id)}
      {into.length > MOST && <text class="soft" x="10" y={h - 2}>{`and ${into.length - MOST} more`}</text>}
      {out.length > MOST && <text class="soft" x="610" y={h - 2}>{`and ${out.length - MOST} more`}</text>}
    </svg>
  );
}
