import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress, parseAddress } from '../src/address.ts';
import { complete, filter, parse, type Selector } from '../src/filter.ts';
import { edgeId, ends, unpack, worst, worstFirst } from '../src/model.ts';
import { csvCell, plain, shellWord } from '../src/text.ts';
import { end, link, wire } from './cluster.ts';

const w = wire({ namespaces: 2, workloads: 4, edges: 0 });
w.namespaces = ['shop', 'data'];
['shop/web', 'data/db', 'shop/api', 'shop/shop-old'].forEach((id, i) => {
  w.nodes.id[i] = id;
  w.nodes.namespace[i] = id.startsWith('shop/') ? 0 : 1;
  w.nodes.name[i] = id.split('/')[1];
});
w.nodes.ingress = [1, 1, 0, 0, 0, 0];
w.nodes.egress = [0, 0, 0, 0, 0, 0];
link(w, 0, 2, 0); // web > api
link(w, 2, 1, 0); // api > db
link(w, 4, 0, 1); // internet > web, denied
link(w, 2, 3, 2); // api > shop-old, would be denied
w.edges.port = [8080, 5432, 443, 53];
w.edges.protocol = [6, 6, 6, 17];
const c = unpack(end(w));
const policies: Selector[] = [{ id: 'NetworkPolicy data/db', tier: 'NetworkPolicy', ingress: [1], egress: [] }, { id: 'ClusterNetworkPolicy top', tier: 'Admin', ingress: [], egress: [0] }];
const run = (text: string, off: string[] = [], mode: 'both' | 'may' | 'does' = 'both') => filter(c, text, new Set(off), mode, policies).edges.map(i => edgeId(c, i));

const web = 'shop/web>shop/api', db = 'shop/api>data/db', net = 'outside:internet>shop/web', old = 'shop/api>shop/shop-old';
for (const [text, want] of Object.entries({
  '': [web, db, net, old], 'WEB': [web, net], 'web api': [web], 'ns:data': [db], 'ns:shop': [web, db, net, old], 'ns:outside': [net], 'from:api': [db, old], 'to:web': [net],
  'from:web to:api': [web], 'port:5432': [db], 'port:8080 port:443': [web, net], 'port:53/udp': [old], 'port:53/tcp': [], 'policy:data/db': [db], 'policy:none': [web, old],
  'tier:admin': [web], 'verdict:denied': [net], 'verdict:would-be-denied': [old], '-api': [net], '-ns:data -from:outside:internet': [web, old], 'outside:': [net],
})) {
  test(`filter ${text || 'without words'}`, () => assert.deepEqual(run(text), want));
}

test('strokes that are off are counted', () => {
  const f = filter(c, '', new Set(['denied']), 'both', policies);
  assert.deepEqual([f.edges.length, f.counts], [3, [1, 1, 2, 0]]);
});
test('an unknown key is said, not ignored', () => assert.deepEqual(parse('nonsense:x web').unknown, ['nonsense:']));
test('words are completed from names', () => {
  assert.deepEqual(complete(c, 'web ns:s', policies), ['web ns:shop']);
  assert.deepEqual(complete(c, 'po', policies), ['port:', 'policy:']);
  assert.deepEqual(complete(c, '-to:db', policies), ['-to:data/db']);
});

test('an address holds all state', () => {
  const a = { view: 'policies', form: 'table', open: ['shop', 'a,b'], every: false, text: 'ns:shop port:5432', selected: 'shop/web>data/db', off: ['denied'], mode: 'does', since: '6h' } as const;
  assert.deepEqual(parseAddress(formatAddress({ ...a, open: [...a.open], off: [...a.off] })), a);
  assert.equal(formatAddress(parseAddress('')), '');
  assert.equal(formatAddress(parseAddress('#sel=shop/web>data/db&view=nonsense')), '#sel=shop/web>data/db');
});
test('ends are found where names have the arrow too', () => {
  const known = new Set(['a>b', 'c']);
  assert.deepEqual(ends('a>b>c', n => known.has(n)), ['a>b', 'c']);
  assert.equal(ends('x>y', n => known.has(n)), undefined);
});

test('texts that others write cannot do harm', () => {
  assert.equal(plain('a\u001b[31mb\u202ec\n'), 'a\\u001b[31mb\\u202ec\\u000a');
  assert.deepEqual(['=1+1', '@x', '-2', 'a,b', 'say "x"', 'plain'].map(csvCell), ["'=1+1", "'@x", "'-2", '"a,b"', '"say ""x"""', 'plain']);
  assert.deepEqual(['shop/web:80', "a'; rm -rf /"].map(shellWord), ['shop/web:80', "'a'\\''; rm -rf /'"]);
});

test('the worst come first, without putting all in order', () => {
  const all = [...worstFirst(c)];
  assert.deepEqual(all.map(i => c.stroke[i]), [...c.stroke].sort());
  for (const most of [1, 2, 3, 9]) assert.deepEqual(worst(c, [3, 1, 0, 2], most), all.slice(0, most));
});

test('a filter marks the edges that it leaves', () => {
  const f = filter(c, 'api', new Set(), 'both', []);
  assert.deepEqual([...f.mask.keys()].filter(i => f.mask[i]), f.edges);
});
