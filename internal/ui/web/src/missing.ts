// What is missing among recorded flows, in words. Nothing here knows a browser.
import { plain, plural } from './text.ts';

/** A loss of records. The node is empty where the reader may not see which nodes there are. */
export interface Loss { node: string; reason: string; records?: number; packets?: number }
/** How much of a time an answer of the observer covers. */
export interface Coverage { since?: string; until?: string; completeSince?: string; losses?: Loss[]; truncated?: boolean }
/** What is missing in a stream: losses of agents, and how many flows the observer left out because the page was too slow. */
export interface Missing { losses: Loss[]; missed: number }

export const NOTHING: Missing = { losses: [], missed: 0 };
const same = (a: Loss, b: Loss) => a.node === b.node && a.reason === b.reason;

/** The sum of what is missing, a loss for each node and reason. */
export function addMissing(to: Missing, more: Partial<Missing>): Missing {
  return { losses: (more.losses ?? []).reduce((all, l) => (all.some(x => same(x, l)) ? all : [...all, l]), to.losses), missed: to.missed + (more.missed ?? 0) };
}

/** Without the losses that an answer, which was asked for later, has counted. */
export const without = (all: Missing, counted: readonly Loss[]): Missing => ({ ...all, losses: all.losses.filter(l => !counted.includes(l)) });

const LISTED = 6;
export function lossText(losses: readonly Loss[]): string {
  if (!losses.length) return '';
  const named = losses.slice(0, LISTED).map(l => `${l.node ? plain(l.node) : 'some nodes'} (${plain(l.reason)})`).join(', ');
  return `Records lost: ${named}${losses.length > LISTED ? ` and ${losses.length - LISTED} more` : ''}. Flows of these nodes may be missing.`;
}

const moment = (t: string) => new Date(t).toLocaleString();

/** What is missing in an answer, a sentence each. An answer without any is complete. */
export function gapsOf(c: Coverage | undefined): string[] {
  return [
    lossText(c?.losses ?? []),
    c?.completeSince && `The observer has all flows since ${moment(c.completeSince)}, and not all of the time before.`,
    c?.truncated && 'There were more connections than the observer answers with: the rarest are left out, so which connections were never used is not known.',
  ].filter(x => !!x) as string[];
}

/** The same in a few words. */
export function gapsInShort(c: Coverage | undefined): string {
  const nodes = new Set(c?.losses?.map(l => l.node).filter(Boolean)).size;
  return [
    c?.losses?.length && (nodes ? `records lost on ${plural(nodes, 'node')}` : 'records lost'),
    c?.completeSince && `all flows since ${moment(c.completeSince)} only`,
    c?.truncated && 'not all connections listed',
  ].filter(Boolean).join(', ');
}

/** What the observer left out of a stream. */
export const missedText = (n: number) => (n ? `The observer left out ${plural(n, 'flow')}, because more arrived than this page could read.` : '');
