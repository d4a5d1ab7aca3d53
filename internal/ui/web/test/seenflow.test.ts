import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Hit, SeenFlow } from '../src/api.ts';
import { parse } from '../src/filter.ts';
import { decider, endName, flowFilter, flowKey, flowsCsv, flowsJson, hitsOf, narrowed } from '../src/seenflow.ts';

const base: SeenFlow = {
  first: '2026-01-02T03:00:00Z', last: '2026-01-02T03:04:05Z', protocol: 'TCP', port: 5432, verdict: 'Denied', sides: 'Complete', connections: 7,
  source: { namespace: 'shop', pod: 'web-1', workload: { kind: 'Deployment', name: 'web' }, address: '10.0.0.1' },
  destination: { namespace: 'data', pod: 'db-0', workload: { kind: 'StatefulSet', name: 'db' }, address: '10.0.0.2' },
  egress: { verdict: 'Allowed', reason: 'policy', tier: 'NetworkPolicy', policy: { kind: 'NetworkPolicy', namespace: 'shop', name: 'web', rules: [1] } },
  ingress: { verdict: 'Denied', reason: 'default-deny', tier: 'NetworkPolicy', isolatedBy: [{ kind: 'NetworkPolicy', namespace: 'data', name: 'db' }] },
  from: 'shop/web', to: 'data/db',
};
const internet: SeenFlow = { ...base, verdict: 'Allowed', port: 443, destination: { address: '203.0.113.9', domainNames: ['example.com'] }, ingress: undefined, to: 'outside:internet' };
const audited: SeenFlow = { ...base, verdict: 'WouldBeDenied', port: 53, protocol: 'UDP', ingress: { verdict: 'Allowed', reason: 'policy', audited: 'Denied', auditedBy: [{ kind: 'NetworkPolicy', namespace: 'data', name: 'strict' }] } };
const all = [base, internet, audited];

test('the filter of flows', () => {
  for (const [text, want] of Object.entries({
    '': all, 'web': all, 'example.com': [internet], 'ns:data': [base, audited], 'ns:outside': [internet], 'to:db': [base, audited], 'from:db': [], 'port:443': [internet],
    'port:53/udp': [audited], 'port:53/tcp': [], 'policy:data/db': [base], 'policy:none': [], 'verdict:would': [audited], 'verdict:denied': [base], '-verdict:denied': [internet, audited],
    'port:443 port:5432': [base, internet], 'tier:network -policy:strict': [base, internet], '203.0.113': [internet],
  })) assert.deepEqual(all.filter(flowFilter(parse(text))), want, text);
});

test('the observer narrows what it can', () => {
  assert.deepEqual(narrowed(parse('ns:shop port:53/udp web'), ['shop']), { namespace: 'shop', port: '53' });
  assert.deepEqual(narrowed(parse('ns:sho port:other'), ['shop']), {});
  assert.deepEqual(narrowed(parse('ns:shop ns:data -port:53'), ['shop', 'data']), {});
});

test('a flow in words', () => {
  assert.equal(decider(base), 'no rule of data/db allows it');
  assert.equal(decider(internet), 'shop/web rule 1');
  assert.equal(decider(audited), 'audited: data/strict');
  assert.deepEqual([endName(base.source), endName(internet.destination), endName({ isNode: true, node: 'n1' }), endName({})], ['shop/web', 'example.com', 'node n1', 'an address that was not kept']);
  assert.equal(flowKey(base), flowKey({ ...base, last: 'later', connections: 9 }));
  assert.notEqual(flowKey(base), flowKey(internet));
});

test('exports', () => {
  const hostile: SeenFlow = { ...base, source: { namespace: 'a', pod: '=cmd()' } };
  const [head, row] = flowsCsv([hostile]).split('\r\n');
  assert.equal(head.split(',').length, row.split(',').length);
  assert.ok(row.includes(`a/=cmd(),'=cmd()`), row);
  assert.deepEqual(flowsJson(all).trimEnd().split('\n').map(l => JSON.parse(l) as SeenFlow).map(f => [f.port, f.from]), [[5432, undefined], [443, undefined], [53, undefined]]);
});

test('hits of a rule and of a default', () => {
  const hit = (of: Partial<Hit>): Hit => ({ kind: 'NetworkPolicy', namespace: 'data', name: 'db', direction: 'Ingress', verdict: 'Allowed', reason: 'policy', connections: 5, last: '2026-01-02', ...of });
  const hits = [hit({ rules: [0] }), hit({ rules: [0, 2], connections: 2, last: '2026-01-03' }), hit({ verdict: 'Denied', reason: 'default-deny' }), hit({ direction: 'Egress', rules: [1] }), hit({ verdict: 'WouldBeDenied', rules: [2], connections: 1 })];
  const id = 'NetworkPolicy data/db';
  assert.deepEqual(hitsOf(hits, id, 'Ingress', 0), { connections: 7, would: 0, last: '2026-01-03' });
  assert.deepEqual(hitsOf(hits, id, 'Ingress', 1), { connections: 0, would: 0, last: '' });
  assert.deepEqual(hitsOf(hits, id, 'Ingress', 2), { connections: 2, would: 1, last: '2026-01-03' });
  assert.deepEqual(hitsOf(hits, id, 'Ingress'), { connections: 5, would: 0, last: '2026-01-02' });
  assert.deepEqual(hitsOf(hits, 'NetworkPolicy data/other', 'Ingress'), { connections: 0, would: 0, last: '' });
});
