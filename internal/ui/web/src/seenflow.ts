// A flow in words, and the filter of flows. Nothing here knows a browser.
import type { Decision, End, Hit, PolicyRef, SeenFlow } from './api.ts';
import { together, type Query, type Term } from './filter.ts';
import type { Verdict } from './model.ts';
import { csvCell } from './text.ts';

const VERDICT: Record<SeenFlow['verdict'], Verdict> = { Allowed: 'allowed', Denied: 'denied', WouldBeDenied: 'audit', WouldBeAllowed: 'denied' };
export const verdictOf = (f: SeenFlow): Verdict => VERDICT[f.verdict];

/** An end by its workload, its DNS name or its address. */
export function endName(e: End): string {
  if (e.workload) return `${e.namespace}/${e.workload.name}`;
  if (e.pod) return `${e.namespace}/${e.pod}`;
  if (e.namespace) return `${e.namespace}/?`;
  if (e.isNode) return e.node ? `node ${e.node}` : 'a node';
  return e.domainNames?.[0] ?? e.address ?? 'an address that was not kept';
}

/** Pod and address of an end, as far as they are known. */
export const endDetail = (e: End) => [e.pod, e.address, e.node && !e.isNode && `on ${e.node}`, e.hidden && 'hidden from you'].filter(Boolean).join(', ');

export const policyName = (p: PolicyRef) => (p.namespace ? `${p.namespace}/${p.name}` : p.name);
export const policyId = (p: PolicyRef) => `${p.kind} ${policyName(p)}`;
const ruleName = (d: Decision) => d.policy && policyName(d.policy) + (d.policy.ruleName ? ` “${d.policy.ruleName}”` : d.policy.rules ? ` rule ${d.policy.rules.join(', ')}` : '');

/** The decision that counts: the one that denies, or that of the destination. */
export function decider(f: SeenFlow): string {
  const audited = [f.egress, f.ingress].flatMap(d => d?.auditedBy ?? []);
  if (verdictOf(f) === 'audit') return audited.length ? `audited: ${audited.map(policyName).join(', ')}` : 'audit mode';
  const denied = verdictOf(f) === 'denied', of = (d?: Decision) => d && (!denied || d.verdict === 'Denied') ? d : undefined;
  const d = of(f.ingress) ?? of(f.egress);
  if (!d) return '';
  return ruleName(d) ?? (d.isolatedBy?.length ? `no rule of ${d.isolatedBy.map(policyName).join(', ')} allows it` : d.reason);
}

const policies = (f: SeenFlow): PolicyRef[] => [f.egress, f.ingress].flatMap(d => [...(d?.policy ? [d.policy] : []), ...(d?.isolatedBy ?? []), ...(d?.auditedBy ?? [])]);

/** The filter line's test of flows. */
export function flowFilter(q: Query): (f: SeenFlow) => boolean {
  return together(q.terms, q.terms.map(t => {
    const f = positive(t);
    return t.not ? (x: SeenFlow) => !f(x) : f;
  }));
}

function positive(t: Term): (f: SeenFlow) => boolean {
  const v = t.value, has = (e: End) => [endName(e), e.pod, e.address, ...(e.domainNames ?? [])].some(x => x?.toLowerCase().includes(v));
  switch (t.key) {
    case 'ns': return f => [f.source, f.destination].some(e => (e.namespace?.toLowerCase() ?? 'outside') === v);
    case 'from': return f => has(f.source);
    case 'to': return f => has(f.destination);
    case 'port': {
      const [number, protocol] = v.split('/');
      return f => String(f.port || 'other') === number && (!protocol || f.protocol.toLowerCase() === protocol);
    }
    case 'policy': return f => (v === 'none' ? policies(f).length === 0 : policies(f).some(p => policyName(p).toLowerCase().includes(v)));
    case 'tier': return f => [f.egress, f.ingress].some(d => d?.tier?.toLowerCase().startsWith(v));
    case 'verdict': return f => ({ denied: 'denied', audit: 'would-be-denied', allowed: 'allowed', unused: '' })[verdictOf(f)].startsWith(v);
    case '': return f => has(f.source) || has(f.destination) || !!f.service?.toLowerCase().includes(v);
  }
}

/** What of a filter the observer can answer by itself, so that its newest flows are those that match. */
export function narrowed(q: Query, namespaces: readonly string[]): Record<string, string> {
  const one = (key: string) => {
    const found = q.terms.filter(t => t.key === key && !t.not);
    return found.length === 1 ? found[0].value : undefined;
  };
  const out: Record<string, string> = {}, ns = one('ns'), port = one('port')?.split('/')[0];
  if (ns && namespaces.includes(ns)) out.namespace = ns;
  if (port && /^[1-9]\d{0,4}$/.test(port)) out.port = port;
  return out;
}

/** The same flow that was read twice, or has grown. */
export const flowKey = (f: SeenFlow) =>
  [f.first, f.source.pod ?? f.source.address, f.destination.pod ?? f.destination.address, f.protocol, f.port, f.verdict, f.reply, f.continues].join(' ');

const COLUMNS: [string, (f: SeenFlow) => string][] = [
  ['first', f => f.first], ['last', f => f.last], ['verdict', f => f.verdict], ['source', f => endName(f.source)], ['source pod', f => f.source.pod ?? ''],
  ['source address', f => f.source.address ?? ''], ['destination', f => endName(f.destination)], ['destination pod', f => f.destination.pod ?? ''],
  ['destination address', f => f.destination.address ?? ''], ['protocol', f => f.protocol], ['port', f => String(f.port ?? '')], ['connections', f => String(f.connections)],
  ['decided by', decider],
];
export const flowsCsv = (list: readonly SeenFlow[]) =>
  [COLUMNS.map(c => c[0]), ...list.map(f => COLUMNS.map(c => c[1](f)))].map(row => row.map(csvCell).join(',') + '\r\n').join('');
/** Lines of JSON, a flow each, as the observer answers. */
export const flowsJson = (list: readonly SeenFlow[]) => list.map(({ from: _, to: __, ...f }) => JSON.stringify(f) + '\n').join('');

/** Connections of a policy's rule, of its defaults where rule is undefined, and when the last one was. */
export function hitsOf(hits: readonly Hit[], id: string, direction: Hit['direction'], rule?: number): { connections: number; would: number; last: string } {
  const out = { connections: 0, would: 0, last: '' };
  for (const h of hits) {
    if (policyId(h) !== id || h.direction !== direction || (rule === undefined ? h.rules?.length : !h.rules?.includes(rule))) continue;
    if (h.verdict === 'WouldBeDenied' || h.verdict === 'WouldBeAllowed') out.would += h.connections;
    else out.connections += h.connections;
    if (h.last > out.last) out.last = h.last;
  }
  return out;
}
