// All policies, by tier, in the order in which they are evaluated.
import { useEffect, useState } from 'preact/hooks';
import * as api from './api.ts';
import { Empty, Failed, Sign, useAnswer, Yaml } from './parts.tsx';
import * as s from './state.ts';
import { parse } from './filter.ts';
import { hitsOf } from './seenflow.ts';
import { count, plain, plural } from './text.ts';

const TIERS = [
  ['Admin', 'ClusterNetworkPolicies that decide first. Priority 0 comes before 1000.'],
  ['NetworkPolicy', 'Of pods that a policy isolates, only what some rule allows is allowed.'],
  ['Baseline', 'ClusterNetworkPolicies for what is left undecided.'],
] as const;

/** What the observer and the agents report beside what policies say. Either may be absent. */
interface Reports { hits?: api.HitsAnswer; inForce?: api.InForceAnswer }
const DIRECTIONS = [['ingress', 'Ingress'], ['egress', 'Egress']] as const;
const day = (t: string) => new Date(t).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
/** The time without a hit, with what is missing in it. */
const since = (h: api.HitsAnswer) => `since ${day(h.coverage.completeSince ?? h.coverage.since ?? '')}${h.coverage.losses?.length ? ', but records were lost' : ''}`;

/** Rules of a policy that decided about no connection. Of an answer that leaves out some rules it is not known. */
function unused(p: api.Policy, { hits, coverage }: api.HitsAnswer): string[] {
  return coverage.truncated ? [] : DIRECTIONS.flatMap(([d, direction]) => [...Array(p[d].rules).keys()].filter(i => {
    const h = hitsOf(hits ?? [], p.id, direction, i);
    return h.connections + h.would === 0;
  }).map(i => `spec.${d}[${i}]`));
}

export function Policies() {
  const c = s.cluster.value, all = s.policies.value, key = [c?.taken, s.address.value.since];
  const hits = useAnswer(async () => (c?.traffic ? api.getHits(s.address.value.since) : undefined), key);
  const inForce = useAnswer(async () => (c?.live && c.agents ? api.getInForce() : undefined), key);
  if (!c) return <div class="page" />;
  const reports: Reports = { hits: hits.answer, inForce: inForce.answer };
  const words = parse(s.address.value.text).terms.filter(t => ['', 'policy', 'ns', 'tier'].includes(t.key));
  const list = all.filter(p => words.every(t => {
    const id = p.id.toLowerCase(), hit = t.key === 'ns' ? p.namespace?.toLowerCase() === t.value : t.key === 'tier' ? p.tier.toLowerCase().startsWith(t.value) : id.includes(t.value);
    return hit !== t.not;
  }));
  if (!all.length) return <div class="page"><Empty title="No policies"><p>Without a policy every pod may talk to every other, and to everything outside.</p></Empty></div>;
  if (!list.length) {
    return <div class="page"><Empty title="No policy matches"><p>{`Filter: ${plain(s.address.value.text)}`}</p>
      <div class="actions"><button class="button primary" onClick={() => s.go({ text: '' }, true)}>Clear the filter</button></div></Empty></div>;
  }
  return (
    <div class="page">
      {[hits.failure, inForce.failure].map(f => f && <p class="hint warn" role="alert">{`▲ ${plain(f.message)}`}</p>)}
      {reports.inForce?.problems?.map(x => <p class="hint warn">{`▲ ${plain(x)}`}</p>)}
      <NeverHit list={list} hits={reports.hits} />
      {TIERS.map(([tier, about]) => {
        const own = list.filter(p => p.tier === tier);
        return own.length > 0 && (
          <section>
            <h2>{tier}<span class="tally">{count(own.length)}</span></h2>
            <p class="soft">{about}</p>
            <ul class="cards">{own.map(p => <Card key={p.id} p={p} opened={list.length === 1} r={reports} />)}</ul>
          </section>
        );
      })}
    </div>
  );
}

const MOST = 12;
function NeverHit({ list, hits }: { list: api.Policy[]; hits: api.HitsAnswer | undefined }) {
  if (!hits || list.length < 2) return null;
  if (hits.coverage.truncated) {
    return <section><h2>Rules never hit</h2><p class="warn">▲ There are more rules with hits than the observer answers with, so this is not known.</p></section>;
  }
  const found = list.filter(p => !p.audit).map(p => ({ p, rules: unused(p, hits) })).filter(x => x.rules.length > 0);
  return (
    <section>
      <h2>Rules never hit<span class="tally">{count(found.reduce((n, x) => n + x.rules.length, 0))}</span></h2>
      <p class="soft">{`They decided about no connection ${since(hits)}. Choose a longer time in the header.`}</p>
      {found.length ? <ul class="peers">{found.slice(0, MOST).map(({ p, rules }) => <li><button onClick={() => s.go({ text: `policy:${p.id.replace(/^\S+ /, '')}` }, true)}>
        <span class="grow">{plain(p.id)}</span><span class="mono soft">{rules.slice(0, 4).join(' ')}{rules.length > 4 ? ` and ${rules.length - 4} more` : ''}</span></button></li>)}
      {found.length > MOST && <li class="more">{`and ${count(found.length - MOST)} more policies, marked below`}</li>}</ul> : <p>Every rule was hit.</p>}
    </section>
  );
}

/** In force on n of n nodes; not where nothing is known of it. */
export function InForce({ of }: { of: api.PolicyInForce | undefined }) {
  if (!of) return null;
  const all = of.inForce === of.nodes && of.resolved === 'True';
  return <span class={all ? 'soft' : 'warn'}>{`${all ? '' : '▲ '}in force on ${count(of.inForce)} of ${plural(of.nodes, 'node')}`}</span>;
}

function Card({ p, opened, r }: { p: api.Policy; opened: boolean; r: Reports }) {
  const [open, set] = useState(opened), never = r.hits && !p.audit ? unused(p, r.hits).length : 0;
  useEffect(() => { // the last one that the filter leaves
    if (opened) set(true);
  }, [opened]);
  const selected = new Set([...(p.ingress.nodes ?? []), ...(p.egress.nodes ?? [])]).size;
  const short = p.namespace ? `${p.namespace}/${p.name}` : p.name;
  const rules = (['ingress', 'egress'] as const).filter(d => p[d].isolates).map(d => (p[d].rules ? `${plural(p[d].rules, `${d} rule`)}` : p.tier === 'NetworkPolicy' ? `denies all ${d}` : ''));
  return (
    <li class="card">
      <button class="cardHead" aria-expanded={open} onClick={() => set(!open)}>
        <span class="chevron" aria-hidden="true">{open ? '⌄' : '›'}</span>
        <span class="grow title">{p.namespace && <span class="soft">{plain(p.namespace)}/</span>}{plain(p.name)}</span>
        {p.priority !== undefined && <span class="soft">priority {p.priority}</span>}
        {p.audit && <span class="pill audit"><Sign v="audit" />audit: decides nothing</span>}
        <span class="soft">{rules.filter(Boolean).join(', ')}</span>
        {never > 0 && <span class="pill unused"><Sign v="unused" />{plural(never, 'rule')} never hit</span>}
        <InForce of={r.inForce?.policies[p.id]} />
        <span class={selected ? 'soft' : 'warn'}>{selected ? `selects ${plural(selected, 'workload')}` : 'selects nothing'}</span>
      </button>
      {open && <Detail p={p} short={short} r={r} />}
    </li>
  );
}

/** Conditions, the nodes where it is not in force, and since when it is audited. */
function Conditions({ of }: { of: api.PolicyInForce }) {
  return (
    <>
      <p>Resolved: <span class={of.resolved === 'True' ? '' : 'warn'}>{of.resolved === 'True' ? 'yes' : of.resolved}</span>{of.message && ` · ${plain(of.message)}`}</p>
      {of.auditedSince && <p>{`Audited since ${day(of.auditedSince)}: it denies nothing, and what it would deny is recorded.`}</p>}
      {of.waiting?.map(n => <p class="warn">{`▲ ${plain(n.node)}: ${n.state}${n.reason ? `, ${plain(n.reason)}` : ''}`}</p>)}
    </>
  );
}

function Hits({ p, hits, direction, rule }: { p: api.Policy; hits: api.HitsAnswer; direction: api.Hit['direction']; rule?: number }) {
  const h = hitsOf(hits.hits ?? [], p.id, direction, rule);
  if (h.connections + h.would === 0) {
    return rule === undefined ? null : <p class="soft">{hits.coverage.truncated ? 'No hits in the observer’s answer, which leaves out some rules.' : <><Sign v="unused" /> {`Never hit ${since(hits)}.`}</>}</p>;
  }
  const what = [h.connections > 0 && `${plural(h.connections, 'connection')}${rule === undefined ? ' denied because no rule allows them' : ''}`, h.would > 0 && `${plural(h.would, 'connection')} would be decided otherwise`];
  return <p>{rule === undefined && `${direction}: `}<b>{what.filter(Boolean).join(', ')}</b><span class="soft">{`, the last ${day(h.last)}`}</span></p>;
}

function Detail({ p, short, r }: { p: api.Policy; short: string; r: Reports }) {
  const { answer, failure, slow, again } = useAnswer(() => api.getPolicy(p.id), [p.id]), c = s.cluster.value!;
  if (failure) return <Failed failure={failure} again={again} />;
  if (!answer) return slow ? <p class="soft">Reading the policy …</p> : null;
  const nodes = (list?: number[]) => list?.map(n => <button class="tag" onClick={() => s.go({ view: 'workload', selected: c.nodes[n].id }, true)}>{plain(c.nodes[n].id)}</button>);
  return (
    <div class="detail">
      {p.source && <p class="soft mono">{plain(p.source)}</p>}
      {r.inForce?.policies[p.id] && <Conditions of={r.inForce.policies[p.id]} />}
      {(['ingress', 'egress'] as const).map(d => p[d].isolates && <p><b>{d === 'ingress' ? 'Ingress' : 'Egress'} of</b> {p[d].nodes?.length ? nodes(p[d].nodes!.slice(0, 30)) : <span class="soft">no pod</span>}
        {(p[d].nodes?.length ?? 0) > 30 && <span class="soft">{` and ${p[d].nodes!.length - 30} more`}</span>}</p>)}
      <div class="actions"><button class="button" onClick={() => s.go({ view: 'map', text: `policy:${short}`, selected: '' }, true)}>Show its edges on the map</button></div>
      {answer.rules.length === 0 && <p>It has no rules.</p>}
      {r.hits && DIRECTIONS.map(([, direction]) => <Hits p={p} hits={r.hits!} direction={direction} />)}
      {answer.rules.map(rule => {
        const m = /^spec\.(ingress|egress)\[(\d+)\]$/.exec(rule.path);
        return (
          <section class="rule"><h3><span class="mono">{rule.path}</span> {rule.name && plain(rule.name)} <span class={`pill ${rule.action === 'Deny' ? 'denied' : rule.action === 'Pass' ? 'unused' : 'allowed'}`}>{rule.action}</span></h3>
            {r.hits && m && <Hits p={p} hits={r.hits} direction={m[1] === 'ingress' ? 'Ingress' : 'Egress'} rule={Number(m[2])} />}
            <Yaml text={rule.yaml} /></section>
        );
      })}
      <details><summary>The whole policy</summary><Yaml text={answer.yaml} /></details>
    </div>
  );
}
