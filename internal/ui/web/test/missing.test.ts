import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addMissing, gapsInShort, gapsOf, lossText, missedText, NOTHING, without, type Loss } from '../src/missing.ts';

const loss = (node: string, reason = 'rate'): Loss => ({ node, reason });

test('what is missing in a stream is added up, a loss for each node and reason', () => {
  const once = addMissing(addMissing(NOTHING, { losses: [loss('n1')], missed: 3 }), { missed: 4 });
  assert.deepEqual(once, { losses: [loss('n1')], missed: 7 });
  const twice = addMissing(once, { losses: [loss('n1'), loss('n1', 'queue'), loss('n2')] });
  assert.deepEqual(twice, { losses: [loss('n1'), loss('n1', 'queue'), loss('n2')], missed: 7 });
  assert.deepEqual(addMissing(NOTHING, {}), NOTHING); // an event of a later version
});

test('losses that a later answer has counted are left out, and those that arrived meanwhile stay', () => {
  const before = addMissing(NOTHING, { losses: [loss('n1')], missed: 2 }), after = addMissing(before, { losses: [loss('n2')] });
  assert.deepEqual(without(after, before.losses), { losses: [loss('n2')], missed: 2 });
});

test('losses in words', () => {
  assert.equal(lossText([]), '');
  assert.equal(lossText([loss('n1'), loss('')]), 'Records lost: n1 (rate), some nodes (rate). Flows of these nodes may be missing.');
  assert.ok(lossText(Array.from({ length: 9 }, (_, i) => loss('n' + i))).includes('n5 (rate) and 3 more.'));
  assert.equal(missedText(0), '');
  assert.ok(missedText(1).includes('1 flow,') && missedText(2000).includes('2,000 flows,'));
});

test('an answer without gaps is complete, and each gap is reported', () => {
  for (const c of [undefined, {}, { losses: [] }]) assert.deepEqual([gapsOf(c), gapsInShort(c)], [[], '']);
  const all = { losses: [loss('n1'), loss('n1', 'queue'), loss('n2')], completeSince: '2026-01-02T03:00:00Z', truncated: true };
  assert.equal(gapsOf(all).length, 3);
  assert.match(gapsInShort(all), /^records lost on 2 nodes, all flows since .* only, not all connections listed$/);
  assert.equal(gapsInShort({ losses: [loss('')] }), 'records lost');
  assert.equal(gapsInShort({ truncated: true }), 'not all connections listed');
});
