// Texts that come from objects which others write: shown as they are, but for characters that a reader would not see or that turn text around.

// eslint-disable-next-line no-control-regex
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** A text on one line, with control and bidirectional characters as escapes. */
export const plain = (s: string) => s.replace(UNSEEN, c => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));

/** Lines of a text, each of them plain. */
export const plainLines = (s: string) => s.split('\n').map(plain);

const number = new Intl.NumberFormat('en');
export const count = (n: number) => number.format(n);
export const plural = (n: number, one: string, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`;

/** Connections per minute, short. */
export function rate(n: number): string {
  if (n >= 10000) return `${Math.round(n / 1000)}k`;
  if (n >= 1000) return `${(n / 1000).toFixed(1)}k`;
  return n >= 100 || Number.isInteger(n) ? String(Math.round(n)) : n.toFixed(1);
}

/** A moment, in seconds since 1970: the time of a day that is today's, and the date of another one. */
export function moment(seconds: number): string {
  const t = new Date(seconds * 1000), today = t.toDateString() === new Date().toDateString();
  return today ? t.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }) : t.toLocaleDateString([], { month: 'short', day: 'numeric' });
}

/** A cell of a CSV file: a spreadsheet must not take it for a formula. */
export function csvCell(s: string): string {
  const text = /^[=+\-@\t\r]/.test(s) ? "'" + s : s;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** A word of a shell's command line. */
export const shellWord = (s: string) => (/^[\w.\/:@-]+$/.test(s) ? s : `'${s.replaceAll("'", "'\\''")}'`);
