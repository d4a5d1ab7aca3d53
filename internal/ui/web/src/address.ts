// All state that a link shows a colleague is in the address.
import { VERDICTS } from './model.ts';

export const VIEWS = ['map', 'workload', 'flows', 'policies', 'whatif'] as const;
export type View = (typeof VIEWS)[number];
export const SPANS = ['1h', '6h', '24h', '168h'] as const;
const DAY = '24h';
export type Form = 'graph' | 'matrix' | 'table';
export interface Address {
  view: View;
  /** Undefined: what suits the size of the cluster. */
  form: Form | undefined;
  open: string[] | undefined;
  every: boolean | undefined;
  text: string;
  selected: string;
  off: string[] | undefined;
  mode: 'both' | 'may' | 'does';
  /** How far back traffic counts. */
  since: string;
}

const list = (s: string | null) => (s === null ? undefined : s.split(',').filter(Boolean).map(decodeURIComponent));

export function parseAddress(hash: string): Address {
  const p = new URLSearchParams(hash.replace(/^#/, ''));
  const one = <T extends string>(key: string, values: readonly T[]) => values.find(v => v === p.get(key));
  return {
    view: one('view', VIEWS) ?? 'map', form: one('as', ['graph', 'matrix', 'table'] as const), open: list(p.get('open')),
    every: p.get('every') === null ? undefined : p.get('every') === '1', text: p.get('q') ?? '', selected: p.get('sel') ?? '',
    off: list(p.get('off'))?.filter(v => (VERDICTS as readonly string[]).includes(v)), mode: one('talk', ['both', 'may', 'does'] as const) ?? 'both',
    since: one('since', SPANS) ?? DAY,
  };
}

export function formatAddress(a: Address): string {
  const p = new URLSearchParams();
  if (a.view !== 'map') p.set('view', a.view);
  if (a.form) p.set('as', a.form);
  if (a.open) p.set('open', a.open.map(encodeURIComponent).join(','));
  if (a.every !== undefined) p.set('every', a.every ? '1' : '0');
  if (a.text) p.set('q', a.text);
  if (a.selected) p.set('sel', a.selected);
  if (a.off) p.set('off', a.off.join(','));
  if (a.mode !== 'both') p.set('talk', a.mode);
  if (a.since !== DAY) p.set('since', a.since);
  const text = p.toString().replaceAll('%2F', '/').replaceAll('%2C', ',').replaceAll('%3A', ':').replaceAll('%3E', '>');
  return text ? '#' + text : '';
}
