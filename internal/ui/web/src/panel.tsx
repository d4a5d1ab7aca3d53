// Details, in one panel beside the map: of an edge, a route, a workload, a namespace, or what needs a look.
import { useEffect, useRef, useState } from 'preact/hooks';
import * as api from './api.ts';
import { gapsOf } from './missing.ts';
import { ALLOWED, AUDIT, count as tally, DENIED, edgeId, MARK, portsOf, protocolName, UNUSED, VERDICTS, WORD, worst, type Cluster, type Port, type Verdict } from './model.ts';
import { Command, Copy, Empty, Failed, Line, Name, Pill, Sign, strokeName, useAnswer, Yaml } from './parts.tsx';
import { nsOfRep, type Rep } from './routes.ts';
import * as s from './state.ts';
import { count, moment, plain, plural, rate } from './text.ts';

export function Panel() {
  const ref = useRef<HTMLElement>(null), before = useRef<Element | null>(null), picked = s.selection.value, c = s.cluster.value;
  useEffect(() => { // the focus goes back to where it was when a panel closes
    if (picked.kind !== 'none') before.current ??= document.activeElement;
    else {
      if (ref.current?.contains(document.activeElement) && before.current instanceof HTMLElement && before.current.isConnected) before.current.focus();
      before.current = null;
    }
    ref.current?.scrollTo(0, 0);
  }, [picked.kind, s.address.value.selected]);
  if (!c) return <aside class="panel" aria-label="Details" />;
  return (
    <aside class="panel" ref={ref} aria-label="Details" tabIndex={-1}>
      {picked.kind !== 'none' && <button class="close" aria-label="Close details" onClick={() => s.go({ selected: '' }, true)}>×</button>}
      {picked.kind === 'none' ? (s.address.value.selected ? <Gone name={s.address.value.selected} /> : <NeedsALook c={c} />)
        : picked.kind === 'edge' ? <EdgePanel key={s.address.value.selected} c={c} from={picked.from} to={picked.to} edge={picked.edge} />
          : picked.kind === 'route' ? <RoutePanel c={c} a={picked.a} b={picked.b} />
            : picked.kind === 'node' ? <NodePanel c={c} node={picked.node} /> : <NamespacePanel c={c} ns={picked.ns} />}
    </aside>
  );
}

function Gone({ name }: { name: string }) {
  return <Empty title="Not in the cluster"><p>{`${plain(name)} is not there any more.`}</p></Empty>;
}

// --- nothing selected

function Group({ v, title, edges, c, none }: { v: Verdict; title: string; edges: number[]; c: Cluster; none: string }) {
  return (
    <section>
      <h3><Sign v={v} />{title}<span class="tally">{count(edges.length)}</span></h3>
      {edges.length ? <Edges c={c} edges={edges} most={5} /> : <p class="soft">{none}</p>}
    </section>
  );
}

function NeedsALook({ c }: { c: Cluster }) {
  const by: number[][] = [[], [], [], []], inward: number[] = [];
  for (const i of s.filtered.value?.edges ?? []) {
    const v = c.stroke[i];
    if (v !== ALLOWED) by[v].push(i);
    if (v !== DENIED && c.nodes[c.source[i]].ns < 0) inward.push(i);
  }
  const open = c.nodes.filter(n => n.ns >= 0 && n.ingress !== 1), gaps = gapsOf(c.covered);
  return (
    <>
      <header class="head"><span class="soft">{c.live ? 'The live cluster' : 'Manifests'}, {c.taken.slice(0, 16).replace('T', ' ')} UTC</span><h2>What needs a look</h2></header>
      {c.traffic && gaps.map(x => <p class="hint warn">{`▲ ${x}`}</p>)}
      {c.traffic && <Group v="denied" title="Denied and tried" c={c} edges={by[DENIED]} none={gaps.length ? 'No recorded connection was denied.' : 'Nothing was denied.'} />}
      <Group v="audit" title="Would be denied by audited policies" c={c} edges={by[AUDIT]} none="No audited policy would deny what is allowed." />
      {c.traffic
        ? <Group v="unused" title="Allowed and never used" c={c} edges={by[UNUSED]} none={c.covered?.truncated ? 'Not known.' : 'All that is allowed is used.'} />
        : <Group v="allowed" title="Reached from outside the cluster" c={c} edges={inward} none="Nothing outside reaches a workload." />}
      <section>
        <h3>Open to everything<span class="tally">{count(open.length)}</span></h3>
        {open.length ? <Nodes c={c} nodes={open.map(n => n.index)} /> : <p class="soft">Policies isolate every workload for ingress.</p>}
      </section>
      {(c.open > 0 || c.left > 0) && (
        <p class="hint">{`Not on the map: ${[c.left > 0 && `${plural(c.left, 'pair')} that policies deny`, c.open > 0 && `${plural(c.open, 'pair')} that no policy isolates`].filter(Boolean).join(', and ')}.`}</p>
      )}
      {c.notes.map(n => <p class="hint">{plain(n)}</p>)}
      <p class="hint">Select a namespace, a workload or a line to see what decides it.</p>
    </>
  );
}

function Nodes({ c, nodes, most = 5 }: { c: Cluster; nodes: number[]; most?: number }) {
  return (
    <ul class="peers">
      {nodes.slice(0, most).map(n => <li><button onClick={() => s.select(c.nodes[n].id)}><Name id={c.nodes[n].id} /><span class="soft">{c.nodes[n].kind}</span></button></li>)}
      {nodes.length > most && <li class="more">{`and ${count(nodes.length - most)} more`}</li>}
    </ul>
  );
}

function Edges({ c, edges, most, end }: { c: Cluster; edges: number[]; most: number; end?: 'source' | 'destination' }) {
  return (
    <ul class="peers">
      {worst(c, edges, most).map(i => {
        const a = c.nodes[c.source[i]].id, b = c.nodes[c.destination[i]].id, v = strokeName(c.stroke[i]), ports = portsOf(c, i);
        if (v === 'denied') ports.sort((x, y) => y.denied - x.denied);
        return (
          <li key={i}><button onClick={() => s.select(edgeId(c, i))}>
            <Sign v={v} /><span class="sr">{WORD[v]}: </span>
            <span class="grow">{end === 'source' ? <Name id={a} /> : end === 'destination' ? <Name id={b} /> : <><Name id={a} /> → <Name id={b} /></>}</span>
            <span class="mono soft">{ports.slice(0, 2).map(p => p.port || 'other').join(' ')}</span>{c.traffic && <span class="mono">{rate(c.rate[i])}</span>}
          </button></li>
        );
      })}
      {edges.length > most && <li class="more">{`and ${count(edges.length - most)} more: see Table`}</li>}
    </ul>
  );
}

// --- an edge

/** Ports as the server reads them, what happened there first. Protocols without ports are not explained. */
const asked = (ports: Port[]) => ports.filter(p => [6, 17, 132].includes(p.protocol)).map(p => `${p.port || 'other'}/${protocolName(p.protocol)}`);
const isDenied = (p: Port) => p.denied > 0 || p.code === 1 || p.code === 5;

function EdgePanel({ c, from, to, edge }: { c: Cluster; from: number; to: number; edge: number }) {
  const a = c.nodes[from], b = c.nodes[to], listed = edge >= 0 ? strokeName(c.stroke[edge]) : undefined;
  // the ports that say most come first: those with the verdict of the edge, and of these the busiest
  const ports = edge < 0 ? [] : portsOf(c, edge).sort((x, y) => Number(isDenied(y) === (listed === 'denied')) - Number(isDenied(x) === (listed === 'denied')) || y.total - x.total);
  const { answer, failure, slow, again } = useAnswer(() => api.getEdge(a.id, b.id, asked(ports)), [a.id, b.id, c.taken]), [at, pick] = useState(0);
  const verdict = listed ?? (answer && (answer.ports.some(p => p.answer.verdict !== 'denied') ? 'allowed' : 'denied')); // of a pair that the map only counts
  const port = answer?.ports[at] ?? answer?.ports[0], known = port && ports.find(p => p.port === port.port && protocolName(p.protocol) === port.protocol);
  const others = ports.filter(p => answer && !answer.ports.some(q => p.port === q.port && protocolName(p.protocol) === q.protocol));
  return (
    <>
      <header class="head">{verdict && <Pill v={verdict} />}
        <h2><Link c={c} node={from} /> <span class="soft">→</span> <Link c={c} node={to} /></h2></header>
      {failure && <Failed failure={failure} again={again} />}
      {slow && <p class="soft">Asking what decides …</p>}
      {answer && port && (
        <>
          <p class="why">{why(port)}</p>
          {known && known.denied > 0 && port.answer.verdict === 'allowed' && (
            <p class="hint warn">{`▲ ${count(known.denied)} of ${plural(known.total, 'connection')} were denied in this time. The policies as they are now allow them.`}</p>
          )}
          <table class="facts">
            <thead><tr><th scope="col">Port</th><th scope="col">Verdict</th>
              {c.traffic && <><th scope="col" class="right">Per min</th><th scope="col" class="right">Total</th><th scope="col" class="right">Last</th></>}</tr></thead>
            <tbody>
              {answer.ports.map((p, i) => {
                const seen = ports.find(q => p.port === q.port && protocolName(q.protocol) === p.protocol);
                const v: Verdict = seen?.code === 2 ? 'audit' : p.answer.verdict === 'denied' ? 'denied' : p.answer.verdict === 'depends' ? 'unused' : 'allowed';
                return (
                  <tr class={i === at ? 'chosen' : ''}>
                    <td class="mono"><button class="plain" aria-pressed={i === at} onClick={() => pick(i)}>{p.protocol} {p.port || 'other'}</button></td>
                    <td>{p.answer.verdict === 'depends' ? <><span class="sign unused">?</span> depends on an address</> : seen?.code === 3 ? <><span class="sign allowed">±</span> some pods</>
                      : <><Sign v={v} /> {WORD[v]}</>}</td>
                    {c.traffic && <Seen p={seen} />}
                  </tr>
                );
              })}
              {others.map(p => <tr><td class="mono">{protocolName(p.protocol)} {p.port || ''}</td><td>{isDenied(p) ? <><Sign v="denied" /> Denied</> : <><Sign v="allowed" /> Allowed</>}</td>{c.traffic && <Seen p={p} />}</tr>)}
            </tbody>
          </table>
          {known && known.total > 0 && <p class="hint">{`First seen ${new Date(known.first * 1000).toLocaleString()}, last seen ${new Date(known.last * 1000).toLocaleString()}.`}</p>}
          <Decisions port={port} policies={answer.policies} />
          <h3>On the command line</h3>
          <Command text={port.command} />
        </>
      )}
      <div class="actions">
        {c.covered && <button class="button" onClick={() => s.go({ view: 'flows', selected: '', text: `from:${a.id.toLowerCase()} to:${b.id.toLowerCase()}` }, true)}>Flows of this edge</button>}
        <button class="button" onClick={() => s.go({ view: 'map', form: 'table', text: `from:${a.id.toLowerCase()} to:${b.id.toLowerCase()}` }, true)}>This pair in the table</button>
        {port && <Copy text={port.text} label="Copy as text" />}
      </div>
    </>
  );
}

/** What happened at a port. */
function Seen({ p }: { p: Port | undefined }) {
  return <><td class="right mono">{p ? rate(p.rate) : ''}</td><td class="right mono">{p ? count(p.total) : ''}</td><td class="right mono">{p?.last ? moment(p.last) : ''}</td></>;
}

function Link({ c, node }: { c: Cluster; node: number }) {
  return <button class="plain" onClick={() => s.select(c.nodes[node].id)}><Name id={c.nodes[node].id} /></button>;
}

/** One sentence of why: that of the end that denies, or that of the source. */
function why(p: api.EdgePort): string {
  const flow = p.answer.flows.find(f => f.verdict === p.answer.verdict) ?? p.answer.flows[0], at = p.answer.flows.indexOf(flow);
  if (flow.always) return plain(`${flow.always}.`);
  const halves = flow.halves ?? [], i = Math.max(0, halves.findIndex(h => h.verdict !== 'allowed'));
  if (!halves[i]) return '';
  return plain(`${halves[i].direction} of ${halves[i].of}: ${p.sentences[at][i]}.`);
}

function Decisions({ port, policies }: { port: api.EdgePort; policies: Record<string, string> }) {
  const flows = port.answer.flows;
  return (
    <>
      {flows.map((f, n) => (
        <section key={n}>
          <h3>{flows.length > 1 ? `Pods ${plain(f.source.pod ?? '')} → ${plain(f.destination.pod ?? '')}` : `Decided by, ${port.protocol} ${port.port || 'any port that no rule names'}`}</h3>
          {f.always && <p>{f.always}</p>}
          <ol class="decisions">
            {f.halves?.map((h, i) => (
              <li class={h.verdict}>
                <span class={`dot ${h.verdict}`} aria-hidden="true">{h.verdict === 'allowed' ? MARK.allowed : h.verdict === 'denied' ? MARK.denied : '?'}</span>
                <div><b>{h.direction}</b> of {plain(h.of)}<div class="soft">{plain(port.sentences[n][i])}</div>
                  {h.tiers?.map(t => <div class="soft tier"><b>{t.tier}</b> {outcome(t.outcome)}</div>)}
                  {h.assumes && <div class="soft">{plain(h.assumes)}</div>}</div>
              </li>
            ))}
          </ol>
          {f.ifEnforced && <p class="why"><Sign v="audit" /> If audited policies were enforced, it would be {f.ifEnforced.verdict}.</p>}
          {f.halves?.map(h => <Quote h={h} policies={policies} />)}
          {f.notes?.map(x => <p class="hint">{plain(x)}</p>)}
          {f.hint && <p class="hint">{plain(f.hint)}</p>}
        </section>
      ))}
    </>
  );
}

const outcome = (o: string) => o.replace(/([a-z])([A-Z])/g, (_, a: string, b: string) => `${a} ${b.toLowerCase()}`).toLowerCase();

/** The rule that decides, or the nearest one with the lines that fail marked. */
function Quote({ h, policies }: { h: api.Half; policies: Record<string, string> }) {
  const near = h.nearest?.[0], rule = h.rule ?? near, [whole, show] = useState(false);
  if (!rule) return null;
  const id = `${rule.kind ?? 'NetworkPolicy'} ${rule.policy}`, why = near && !h.rule ? near.why : [];
  const byPort = why.some(w => w.startsWith('rule allows')), byPeer = why.some(w => !w.startsWith('rule allows'));
  let part = '';
  return (
    <div class="quote">
      <h3>{h.rule ? 'Deciding rule' : 'Nearest rule'} of {h.direction.toLowerCase()}</h3>
      <p><button class="link" onClick={() => s.go({ view: 'policies', selected: '', text: `policy:${rule.policy}` }, true)}>{plain(id)}</button> <span class="mono soft">{rule.path}</span>{rule.name && ` “${plain(rule.name)}”`}</p>
      {whole ? <Yaml text={policies[id] ?? ''} /> : <Yaml text={rule.quote} marked={line => {
        const m = /^[- ] ?(ports|from|to):/.exec(line);
        if (m) part = m[1];
        return part === 'ports' ? byPort : part ? byPeer : false;
      }} />}
      {why.length > 0 && <ul class="reasons">{why.map(w => <li>{plain(w)}</li>)}</ul>}
      <button class="link" onClick={() => show(!whole)}>{whole ? 'Only the rule' : 'The whole policy'}</button>
    </div>
  );
}

// --- a route, a workload, a namespace

function RoutePanel({ c, a, b }: { c: Cluster; a: Rep; b: Rep }) {
  const is = (node: number, r: Rep) => (r < 0 ? c.nodes[node].ns === nsOfRep(r) : node === r), name = (r: Rep) => (r < 0 ? c.namespaces[nsOfRep(r)] : c.nodes[r].id);
  const edges = (s.filtered.value?.edges ?? []).filter(i => is(c.source[i], a) && is(c.destination[i], b));
  return (
    <>
      <header class="head"><span class="soft">Route</span><h2><Name id={name(a)} /> <span class="soft">→</span> <Name id={name(b)} /></h2></header>
      <Shares n={tally(c, edges)} />
      <h3>Connections<span class="tally">{count(edges.length)}</span></h3>
      <Edges c={c} edges={edges} most={24} />
    </>
  );
}

export function Shares({ n }: { n: number[] }) {
  const sum = n[0] + n[1] + n[2] + n[3];
  return (
    <div class="shares">
      <div class="bar" aria-hidden="true">{VERDICTS.map((v, i) => n[i] > 0 && <span class={v} style={{ flexGrow: n[i] }} />)}</div>
      <ul>{VERDICTS.map((v, i) => <li><Line v={v} /><Sign v={v} />{WORD[v]}<b>{`${count(n[i])} of ${count(sum)}`}</b></li>)}</ul>
    </div>
  );
}

function NodePanel({ c, node }: { c: Cluster; node: number }) {
  const n = c.nodes[node], mask = s.filtered.value?.mask, of = (list: number[]) => list.filter(i => mask?.[i]);
  const into = of(c.in[node]), out = of(c.out[node]);
  return (
    <>
      <header class="head"><span class="soft">{n.ns < 0 ? 'Outside the cluster' : `${n.kind}, ${plural(n.pods, 'pod')}`}</span><h2><Name id={n.id} /></h2></header>
      {n.ns >= 0 && <Isolation ingress={n.ingress} egress={n.egress} />}
      <h3>In<span class="tally">{count(into.length)}</span></h3>
      {into.length ? <Edges c={c} edges={into} most={9} end="source" /> : <p class="soft">Nothing that is shown.</p>}
      <h3>Out<span class="tally">{count(out.length)}</span></h3>
      {out.length ? <Edges c={c} edges={out} most={9} end="destination" /> : <p class="soft">Nothing that is shown.</p>}
      <div class="actions">
        {n.ns >= 0 && <button class="button" onClick={() => s.go({ view: 'workload', selected: n.id }, true)}>Open the workload</button>}
        <button class="button" onClick={() => s.go({ form: 'table', text: n.id.toLowerCase() }, true)}>In the table</button>
      </div>
    </>
  );
}

const ISOLATION = ['not isolated', 'isolated', 'some pods isolated'];
export function Isolation({ ingress, egress }: { ingress: number; egress: number }) {
  return (
    <dl class="isolation">
      <div class={ingress ? 'yes' : ''}><dt>Ingress</dt><dd>{ISOLATION[ingress]}</dd></div>
      <div class={egress ? 'yes' : ''}><dt>Egress</dt><dd>{ISOLATION[egress]}</dd></div>
    </dl>
  );
}

function NamespacePanel({ c, ns }: { c: Cluster; ns: number }) {
  const d = s.drawn.value, edges = (s.filtered.value?.edges ?? []).filter(i => c.nodes[c.source[i]].ns === ns || c.nodes[c.destination[i]].ns === ns);
  const own = s.policies.value.filter(p => p.namespace === c.namespaces[ns]), open = c.members[ns].filter(n => n.ingress !== 1);
  return (
    <>
      <header class="head"><span class="soft">Namespace, {plural(c.members[ns].length, 'workload')}</span><h2><Name id={c.namespaces[ns]} /></h2></header>
      <Shares n={d ? [...d.total[ns]] : [0, 0, 0, 0]} />
      <h3>Policies<span class="tally">{count(own.length)}</span></h3>
      {own.length ? <ul class="peers">{own.slice(0, 8).map(p => <li><button onClick={() => s.go({ view: 'policies', text: `policy:${p.namespace}/${p.name}`, selected: '' }, true)}><span class="grow">{plain(p.name)}</span>{p.audit && <span class="soft">audit</span>}</button></li>)}
        {own.length > 8 && <li class="more">{`and ${own.length - 8} more: see Policies`}</li>}</ul> : <p class="soft">No NetworkPolicy in this namespace.</p>}
      <h3>Not isolated for ingress<span class="tally">{count(open.length)}</span></h3>
      {open.length > 0 && <Nodes c={c} nodes={open.map(n => n.index)} />}
      <h3>Connections<span class="tally">{count(edges.length)}</span></h3>
      <Edges c={c} edges={edges} most={9} />
      <div class="actions"><button class="button" onClick={() => s.toggle(ns)}>{s.open.value.has(ns) ? 'Close on the map' : 'Open on the map'}</button></div>
    </>
  );
}
