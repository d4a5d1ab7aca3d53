// All policies, by tier, in the order in which they are evaluated.
import { useState } from 'preact/hooks';
import * as api from './api.ts';
import { Empty, Failed, Sign, useAnswer, Yaml } from './parts.tsx';
import * as s from './state.ts';
import { parse } from './filter.ts';
import { count, plain, plural } from './text.ts';

const TIERS = [
  ['Admin', 'ClusterNetworkPolicies that decide first. Priority 0 comes before 1000.'],
  ['NetworkPolicy', 'Of pods that a policy isolates, only what some rule allows is allowed.'],
  ['Baseline', 'ClusterNetworkPolicies for what is left undecided.'],
] as const;

export function Policies() {
  const c = s.cluster.value, all = s.policies.value;
  if (!c) return <div class="page" />;
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
      {TIERS.map(([tier, about]) => {
        const own = list.filter(p => p.tier === tier);
        return own.length > 0 && (
          <section>
            <h2>{tier}<span class="tally">{count(own.length)}</span></h2>
            <p class="soft">{about}</p>
            <ul class="cards">{own.map(p => <Card key={p.id} p={p} opened={list.length === 1} />)}</ul>
          </section>
        );
      })}
    </div>
  );
}

function Card({ p, opened }: { p: api.Policy; opened: boolean }) {
  const [open, set] = useState(opened), selected = new Set([...(p.ingress.nodes ?? []), ...(p.egress.nodes ?? [])]).size;
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
        <span class={selected ? 'soft' : 'warn'}>{selected ? `selects ${plural(selected, 'workload')}` : 'selects nothing'}</span>
      </button>
      {open && <Detail p={p} short={short} />}
    </li>
  );
}

function Detail({ p, short }: { p: api.Policy; short: string }) {
  const { answer, failure, slow, again } = useAnswer(() => api.getPolicy(p.id), [p.id]), c = s.cluster.value!;
  if (failure) return <Failed failure={failure} again={again} />;
  if (!answer) return slow ? <p class="soft">Reading the policy …</p> : null;
  const nodes = (list?: number[]) => list?.map(n => <button class="tag" onClick={() => s.go({ view: 'workload', selected: c.nodes[n].id }, true)}>{plain(c.nodes[n].id)}</button>);
  return (
    <div class="detail">
      {p.source && <p class="soft mono">{plain(p.source)}</p>}
      {(['ingress', 'egress'] as const).map(d => p[d].isolates && <p><b>{d === 'ingress' ? 'Ingress' : 'Egress'} of</b> {p[d].nodes?.length ? nodes(p[d].nodes!.slice(0, 30)) : <span class="soft">no pod</span>}
        {(p[d].nodes?.length ?? 0) > 30 && <span class="soft">{` and ${p[d].nodes!.length - 30} more`}</span>}</p>)}
      <div class="actions"><button class="button" onClick={() => s.go({ view: 'map', text: `policy:${short}`, selected: '' }, true)}>Show its edges on the map</button></div>
      {answer.rules.length === 0 && <p>It has no rules.</p>}
      {answer.rules.map(r => (
        <section class="rule"><h3><span class="mono">{r.path}</span> {r.name && plain(r.name)} <span class={`pill ${r.action === 'Deny' ? 'denied' : r.action === 'Pass' ? 'unused' : 'allowed'}`}>{r.action}</span></h3><Yaml text={r.yaml} /></section>
      ))}
      <details><summary>The whole policy</summary><Yaml text={answer.yaml} /></details>
    </div>
  );
}
