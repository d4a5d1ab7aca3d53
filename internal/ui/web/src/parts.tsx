// Small parts that all views use.
import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { CODES, CODE_MARKS, MARK, VERDICTS, WORD, portName, type Port, type Verdict } from './model.ts';
import { plain } from './text.ts';
import * as s from './state.ts';
import { Failure } from './api.ts';

/** Sign of a verdict; its word is beside it, or in its label. */
export const Sign = ({ v }: { v: Verdict }) => <span class={`sign ${v}`} aria-hidden="true">{MARK[v]}</span>;
export const Pill = ({ v, text }: { v: Verdict; text?: string }) => <span class={`pill ${v}`}><Sign v={v} />{text ?? WORD[v]}</span>;
export const strokeName = (stroke: number): Verdict => VERDICTS[stroke];

/** A name, the namespace paler than the rest. */
export function Name({ id }: { id: string }) {
  const text = plain(id.replace(/^outside:/, '')), at = text.indexOf('/');
  return <span class="name" title={text}>{!id.startsWith('outside:') && at > 0 ? <><span class="soft">{text.slice(0, at + 1)}</span>{text.slice(at + 1)}</> : text}</span>;
}

const CODE_STYLE: readonly Verdict[] = ['allowed', 'denied', 'audit', 'allowed', 'unused', 'denied'];
/** Ports of an edge with a mark each. */
export function Ports({ ports, most = 6 }: { ports: Port[]; most?: number }) {
  return (
    <span class="ports">
      {ports.slice(0, most).map(p => (
        <span class="port" title={CODES[p.code]}><span class={`sign ${CODE_STYLE[p.code]}`} aria-hidden="true">{CODE_MARKS[p.code]}</span>
          <span class="sr">{CODES[p.code]} </span>{portName(p.port, p.protocol)}</span>
      ))}
      {ports.length > most && <span class="soft">{` and ${ports.length - most} more`}</span>}
    </span>
  );
}

export function Line({ v }: { v: Verdict }) {
  const dash = { denied: '7 4', audit: '9 3 2 3', allowed: '', unused: '1.5 4' }[v];
  return <svg class={`line ${v}`} width="26" height="8" aria-hidden="true"><path d="M1 4H25" stroke="currentColor" stroke-width="2" stroke-dasharray={dash} /></svg>;
}

/** YAML with keys apart, and lines marked. */
export function Yaml({ text, marked }: { text: string; marked?: (line: string, index: number) => boolean }) {
  return (
    <pre tabIndex={0}>
      {text.trimEnd().split('\n').map((line, i) => {
        const m = /^(\s*(?:- )*)([\w./-]+:)(.*)$/.exec(line), body = m ? <>{m[1]}<span class="key">{m[2]}</span>{plain(m[3])}</> : plain(line);
        return marked?.(line, i) ? <mark>{body}{'\n'}</mark> : <>{body}{'\n'}</>;
      })}
    </pre>
  );
}

export function Copy({ text, label }: { text: string; label: string }) {
  const [done, set] = useState(false);
  return <button type="button" class="button" onClick={() => void navigator.clipboard.writeText(text).then(() => {
    set(true);
    s.spoken.value = 'Copied';
  })}>{done ? 'Copied' : label}</button>;
}

export function Command({ text }: { text: string }) {
  return <div class="command"><code>{plain(text)}</code><Copy text={text} label="Copy" /></div>;
}

/** An answer of the server: nothing is shown in the first 400 ms. */
export function useAnswer<T>(ask: () => Promise<T>, key: unknown[]): { answer?: T; failure?: Failure; slow: boolean; again: () => void } {
  const [state, set] = useState<{ answer?: T; failure?: Failure; slow: boolean }>({ slow: false }), [turn, again] = useState(0);
  useEffect(() => {
    let gone = false;
    set({ slow: false });
    const timer = setTimeout(() => !gone && set(now => ({ ...now, slow: !now.answer && !now.failure })), 400);
    ask().then(answer => !gone && set({ answer, slow: false }), (e: unknown) => !gone && set({ failure: e instanceof Failure ? e : new Failure('this', String(e)), slow: false }));
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [...key, turn]);
  return { ...state, again: () => again(n => n + 1) };
}

export function Failed({ failure, again }: { failure: Failure; again: () => void }) {
  return (
    <div class="state" role="alert">
      <h2>No answer</h2>
      <p>{`Asked for ${plain(failure.asked)}.`}</p>
      <p class="mono">{plain(failure.answered)}</p>
      <div class="actions"><button class="button primary" onClick={again}>Retry</button></div>
      <p class="soft">docs/troubleshooting.md describes what to do if it fails again.</p>
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return <div class="state"><h2>{title}</h2>{children}</div>;
}

export function NoMatch() {
  const words = s.address.value.text, off = [...s.off.value].map(v => WORD[v as Verdict].toLowerCase());
  return (
    <Empty title="No connection matches">
      <p>{[words && `Filter: ${plain(words)}`, off.length && `not shown: ${off.join(', ')}`].filter(Boolean).join(' · ')}</p>
      <div class="actions"><button class="button primary" onClick={() => s.go({ text: '', off: [], mode: 'both' }, true)}>Clear all filters</button></div>
    </Empty>
  );
}
