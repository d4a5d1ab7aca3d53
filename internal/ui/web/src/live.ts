// Flows as they arrive: the newest of the observer's history first, then a stream. What was seen stays while the observer is away.
import { batch, computed, effect, signal } from '@preact/signals';
import * as api from './api.ts';
import { parse } from './filter.ts';
import { addMissing, NOTHING, without, type Missing } from './missing.ts';
import { flowFilter, flowKey, narrowed, verdictOf } from './seenflow.ts';
import { address, cluster, load, off, view } from './state.ts';

/** How many flows are kept, and how often the table changes at most. */
const MOST = 5000, PERIOD = 250, COVERAGE = 30_000;

export const rows = signal<api.SeenFlow[]>([]);
export const coverage = signal<api.FlowsAnswer | undefined>(undefined);
export const failed = signal<api.Failure | undefined>(undefined);
/** Why nothing arrives, and since when. */
export const away = signal<{ error: string; since: Date } | undefined>(undefined);
/** What is missing among the flows that arrived. */
export const missing = signal<Missing>(NOTHING);
/** Losses of the whole time, and of what arrived since the observer was asked about them. */
export const losses = computed(() => addMissing({ losses: coverage.value?.coverage.losses ?? [], missed: 0 }, missing.value).losses);
export const paused = signal(false);
export const waiting = signal(0);
export const read = signal(false);

const query = computed(() => parse(address.value.text));
export const matching = computed(() => {
  const test = flowFilter(query.value);
  return rows.value.filter(test);
});
export const counts = computed(() => {
  const n = { denied: 0, audit: 0, allowed: 0, unused: 0 };
  for (const f of matching.value) n[verdictOf(f)]++;
  return n;
});
export const shown = computed(() => matching.value.filter(f => !off.value.has(verdictOf(f))));

let source: EventSource | undefined, held: api.SeenFlow[] = [], timer = 0, clock = 0, turn = 0;

function add(): void {
  timer = 0;
  if (paused.value) {
    const known = new Set(rows.value.map(flowKey)); // flows that are read twice are not new
    waiting.value = held.filter(f => !known.has(flowKey(f))).length;
    return;
  }
  const all = new Map(rows.value.map(f => [flowKey(f), f]));
  for (const f of held) all.set(flowKey(f), f);
  held = [];
  batch(() => {
    rows.value = [...all.values()].sort((a, b) => (a.last < b.last ? 1 : a.last > b.last ? -1 : 0)).slice(0, MOST);
    waiting.value = 0;
  });
}

export function pause(on: boolean): void {
  paused.value = on;
  if (!on) add();
}

function close(): void {
  source?.close();
  source = undefined;
  clearInterval(clock);
}

/** Read the history, and follow. */
export async function start(narrow: Record<string, string>, since: string): Promise<void> {
  close();
  const own = ++turn;
  held = [];
  batch(() => {
    rows.value = [];
    read.value = false;
    missing.value = NOTHING;
    failed.value = away.value = undefined;
  });
  try {
    const answer = await api.getFlows({ ...narrow, since });
    if (own !== turn) return;
    batch(() => {
      rows.value = answer.flows;
      coverage.value = answer;
      read.value = true;
    });
  } catch (e) {
    if (own === turn) failed.value = e instanceof api.Failure ? e : new api.Failure('flows', String(e));
    return;
  }
  const last = rows.value[0]?.last;
  source = api.followFlows({ ...narrow, since: last ?? '1m' });
  source.onmessage = e => {
    held.push(JSON.parse(e.data as string) as api.SeenFlow);
    if (held.length > MOST) held.splice(0, held.length - MOST);
    timer ||= window.setTimeout(add, PERIOD);
  };
  source.addEventListener('missing', e => (missing.value = addMissing(missing.value, JSON.parse((e as MessageEvent<string>).data) as Partial<Missing>)));
  source.addEventListener('live', () => {
    if (away.value) void load();
    away.value = undefined;
  });
  const lost = (error: string) => {
    if (!away.value) void load(); // the map has no flows now, or the token has ended
    away.value = { error, since: away.value?.since ?? new Date() };
  };
  source.addEventListener('lost', e => lost((JSON.parse((e as MessageEvent<string>).data) as { error: string }).error));
  source.onerror = () => lost('no answer of the map’s server; the browser asks again');
  clock = window.setInterval(() => {
    if (document.hidden) return;
    const before = missing.value.losses;
    api.getFlows({ ...narrow, since, limit: '1' }).then(a => own === turn && batch(() => {
      coverage.value = a;
      missing.value = without(missing.value, before);
    }), () => undefined); // that it is away the stream reports
  }, COVERAGE);
}

/** Only the view of flows follows, with what the observer can narrow by itself. */
const wanted = computed(() => (view.value === 'flows' && (!cluster.value || cluster.value.covered)
  ? JSON.stringify([narrowed(query.value, cluster.value?.namespaces ?? []), address.value.since]) : ''));
effect(() => {
  if (!wanted.value) {
    close();
    return;
  }
  const [narrow, since] = JSON.parse(wanted.value) as [Record<string, string>, string];
  void start(narrow, since);
});
export const again = () => {
  const [narrow, since] = JSON.parse(wanted.value || '[{},"1h"]') as [Record<string, string>, string];
  void start(narrow, since);
};
