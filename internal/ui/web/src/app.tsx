// The page: header, filter line, the view, the panel, and the footer.
import { render } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { SPANS, type View } from './address.ts';
import { complete } from './filter.ts';
import { Flows, NoRights } from './flows.tsx';
import * as live from './live.ts';
import { connection, Graph } from './map.tsx';
import { Matrix } from './matrix.tsx';
import { gapsInShort, gapsOf } from './missing.ts';
import { VERDICTS, WORD, type Verdict } from './model.ts';
import { Panel } from './panel.tsx';
import { Failed, Line, NoMatch, Sign } from './parts.tsx';
import { Policies } from './policies.tsx';
import * as s from './state.ts';
import { Table } from './table.tsx';
import { count, plain } from './text.ts';
import { theme, turn } from './theme.ts';
import { Token } from './token.tsx';
import { WhatIf } from './whatif.tsx';
import { WorkloadView } from './workload.tsx';
import { formatAddress } from './address.ts';

const NAMES: [View, string][] = [['map', 'Map'], ['workload', 'Workload'], ['flows', 'Flows'], ['policies', 'Policies'], ['whatif', 'What if']];

/** Words of the filter that narrow policies, too. */
const withoutEnds = (text: string) => text.split(/\s+/).filter(word => !/^-?(from|to|port|verdict):/i.test(word)).join(' ');

function Header() {
  const c = s.cluster.value;
  return (
    <header class="top">
      <h1 class="brand"><svg width="18" height="18" viewBox="0 0 18 18" aria-hidden="true"><path d="M1 3h16M2.5 6.5h13M5 3v13M13 3v13M9 3v3.5" fill="none" stroke="currentColor" stroke-width="1.8" /></svg><b>kidoban</b></h1>
      {c && <span class="where" title={plain(c.name)}>{plain(c.name)}</span>}
      <nav aria-label="Views">
        {NAMES.map(([v, name]) => {
          const { selected, text } = s.address.value;
          const next = { view: v, selected: v === 'map' || v === 'workload' ? selected : '', text: v === 'policies' ? withoutEnds(text) : text };
          return <a href={formatAddress({ ...s.address.value, ...next }) || '#'} aria-current={s.view.value === v ? 'page' : undefined}
            onClick={e => !e.ctrlKey && !e.metaKey && (e.preventDefault(), s.go(next, true))}>{name}</a>;
        })}
      </nav>
      <div class="right">
        {c?.covered && <label class="since">Last <select value={s.address.value.since} onChange={e => (s.go({ since: e.currentTarget.value }), void s.load())}>
          {SPANS.map((v, i) => <option value={v}>{['hour', '6 hours', '24 hours', '7 days'][i]}</option>)}</select></label>}
        {c && <span class="live soft">{c.traffic ? <><i />Live</> : c.live ? 'No observer: what may talk' : 'Manifests: what may talk'}</span>}
        <button class="icon" onClick={() => void s.load()} aria-label="Read again" title="Read again">↻</button>
        <button class="icon" onClick={turn} aria-label={theme.value === 'dark' ? 'Light colours' : 'Dark colours'} title="Light or dark (D)">{theme.value === 'dark' ? '☀' : '☾'}</button>
        <button class="icon" onClick={() => (s.help.value = true)} aria-label="Keys and words" title="Keys and words (?)">?</button>
      </div>
    </header>
  );
}

function FilterLine() {
  const c = s.cluster.value, f = s.filtered.value, v = s.view.value, a = s.address.value;
  if (v !== 'map' && v !== 'policies' && v !== 'flows' || v === 'flows' && c && !c.covered) return null;
  const n = v === 'flows' ? VERDICTS.map(x => live.counts.value[x]) : f?.counts;
  const toggle = (x: Verdict) => {
    const next = new Set(s.off.value);
    if (!next.delete(x)) next.add(x);
    s.go({ off: [...next] });
  };
  return (
    <div class="filter" role="search">
      <div class="search">
        <input id="filter" type="search" list="completions" autocomplete="off" spellcheck={false} value={s.typed.value} placeholder="Filter: name, ns:shop, port:5432" aria-label="Filter"
          onInput={e => s.type(e.currentTarget.value)} />
        <kbd aria-hidden="true">/</kbd>
        <datalist id="completions">{c && complete(c, s.typed.value, s.selectors.value).map(t => <option value={t} />)}</datalist>
      </div>
      {v !== 'policies' && (
        <div class="verdicts" role="group" aria-label="Verdicts">
          {VERDICTS.map((x, i) => (x !== 'unused' || c?.traffic && v === 'map') && <button aria-pressed={!s.off.value.has(x)} onClick={() => toggle(x)}><Line v={x} /><Sign v={x} /><span>{WORD[x]}</span><b>{n ? count(n[i]) : ''}</b></button>)}
        </div>
      )}
      {v === 'map' && (
        <>
          {c?.traffic && <Choice label="Talk" value={a.mode} of={[['both', 'Both'], ['may', 'May talk'], ['does', 'Does talk']]} on={mode => s.go({ mode })} />}
          <Choice label="Form" value={s.form.value} of={[['graph', 'Graph'], ['matrix', 'Matrix'], ['table', 'Table']]} on={form => s.go({ form }, true)} />
        </>
      )}
      {f && f.unknown.length > 0 && <p class="unknown" role="status">{`Not a word of the filter: ${f.unknown.map(plain).join(' ')}. Press ? for the words.`}</p>}
    </div>
  );
}

function Choice<T extends string>({ label, value, of, on }: { label: string; value: T; of: [T, string][]; on: (v: T) => void }) {
  return <div class="choice" role="group" aria-label={label}>{of.map(([v, name]) => <button aria-pressed={v === value} onClick={() => on(v)}>{name}</button>)}</div>;
}

function Main() {
  const v = s.view.value, failure = s.failed.value;
  if (failure?.token) return <main id="main"><Token failure={failure} /></main>;
  if (failure && !s.cluster.value && v !== 'flows') {
    return <main id="main">{failure.rights ? <NoRights text={failure.answered} /> : <Failed failure={failure} again={() => void s.load()} />}</main>;
  }
  if (v === 'map') {
    const none = s.form.value === 'graph' && s.filtered.value && !s.filtered.value.edges.length && s.cluster.value!.size > 0 && s.address.value.text !== '';
    return (
      <main id="main" class="map" tabIndex={-1}>
        {s.form.value === 'graph' ? <div class="stack"><Graph />{none && <div class="overlay"><NoMatch /></div>}</div> : s.form.value === 'matrix' ? <Matrix /> : <Table />}
        <Panel />
      </main>
    );
  }
  return (
    <main id="main" tabIndex={-1}>
      {v === 'policies' ? <Policies /> : v === 'workload' ? <WorkloadView /> : v === 'flows' ? <Flows /> : <WhatIf />}
    </main>
  );
}

/** The observer is away: everything stays usable, and nothing is greyed. */
function Strip() {
  const error = s.cluster.value?.covered?.error;
  if (s.view.value === 'flows') return null; // it has its own report
  return error ? <p class="strip" role="alert">{`▲ No flows, so this is what may talk: ${plain(error)}`} <button class="link" onClick={() => void s.load()}>Try again</button></p> : null;
}

function Footer() {
  const c = s.cluster.value, f = s.filtered.value, gaps = gapsInShort(c?.covered);
  return (
    <footer>
      {c && <><span>{`${count(c.namespaces.length)} namespaces`}</span><span>{`${count(c.nodes.length - c.outside.length)} workloads`}</span>
        <span><b>{count(f?.edges.length ?? 0)}</b>{` of ${count(c.size)} connections`}</span><span>{`${count(c.policies)} policies`}</span>
        {c.open + c.left > 0 && <span>{`${count(c.open + c.left)} pairs not listed`}</span>}
        {c.traffic && <span class={gaps ? 'warn' : ''} title={gapsOf(c.covered).join(' ')}>{gaps ? `▲ ${gaps}` : 'no records lost'}</span>}
        {!!c.covered?.unplaced && <span>{`${count(c.covered.unplaced)} connections of workloads that are not on the map`}</span>}
        {!!c.covered?.hidden?.length && <span title={c.covered.hidden.map(plain).join(', ')}>{`${count(c.covered.hidden.length)} namespaces hidden from you`}</span>}
        {s.failed.value && <span class="warn" role="alert">{`▲ ${plain(s.failed.value.message)}`}</span>}</>}
      <span class="keys" aria-hidden="true"><kbd>/</kbd> filter <kbd>↑→</kbd> move <kbd>Space</kbd> open <kbd>N</kbd> next edge <kbd>T</kbd> table <kbd>?</kbd> keys</span>
    </footer>
  );
}

const HELP: [string, string][] = [
  ['/', 'filter'], ['arrows', 'to the next thing in that direction; with Shift, move the map'], ['Space', 'open, close a namespace'],
  ['Page Down, Page Up', 'into a namespace, out of it'], ['Enter', 'select'], ['N, P', 'next, previous connection; in Flows, P pauses'], ['+ − 0', 'larger, smaller, all'],
  ['M, T', 'next form; table'], ['D', 'light or dark'], ['Esc', 'close, clear'],
];
const WORDS: [string, string][] = [
  ['web', 'either end has it in its name'], ['ns:shop', 'either end is in the namespace'], ['from:web to:db', 'the source, the destination'], ['port:5432, port:53/udp', 'a port'],
  ['policy:shop/web', 'edges that the policy decides about'], ['policy:none', 'edges that no policy decides about'], ['tier:admin', 'edges that the tier decides about'],
  ['verdict:denied', 'a verdict'], ['-ns:kube-system', 'without these'],
];

function Help() {
  const ref = useRef<HTMLDialogElement>(null), open = s.help.value;
  useEffect(() => {
    if (open) ref.current?.showModal();
    else ref.current?.close();
  }, [open]);
  return (
    <dialog ref={ref} aria-labelledby="help-title" onClose={() => (s.help.value = false)}>
      <h2 id="help-title">Keys and words</h2>
      <div class="two">
        <section><h3>Keys</h3><dl>{HELP.map(([k, t]) => <div><dt><kbd>{k}</kbd></dt><dd>{t}</dd></div>)}</dl></section>
        <section><h3>Words of the filter</h3><dl>{WORDS.map(([k, t]) => <div><dt class="mono">{k}</dt><dd>{t}</dd></div>)}</dl></section>
      </div>
      <p><label><input type="checkbox" checked={letters()} onChange={e => setLetters(e.currentTarget.checked)} /> Single letters are keys</label></p>
      <button class="button primary" onClick={() => (s.help.value = false)}>Close</button>
    </dialog>
  );
}

function letters(): boolean {
  try {
    return localStorage.getItem('kidoban-letters') !== 'off';
  } catch {
    return true;
  }
}
function setLetters(on: boolean): void {
  try {
    localStorage.setItem('kidoban-letters', on ? 'on' : 'off');
  } catch { /* a browser that keeps nothing */ }
}

const FORMS = ['graph', 'matrix', 'table'] as const;
document.addEventListener('keydown', e => {
  const on = e.target as HTMLElement, field = on.matches('input,select,textarea');
  if (e.key === 'Escape') {
    if (s.help.value) s.help.value = false;
    else if (s.address.value.selected) s.go({ selected: '' }, true);
    else if (s.typed.value) s.go({ text: '' });
    if (field) on.blur();
    return;
  }
  if (field || s.help.value || e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented) return;
  if (/^[a-z/?]$/i.test(e.key) && !letters()) return;
  switch (e.key.toLowerCase()) {
    case '/': e.preventDefault(); document.getElementById('filter')?.focus(); return;
    case '?': s.help.value = true; return;
    case 'd': turn(); return;
    case 'm': s.go({ view: 'map', form: FORMS[(FORMS.indexOf(s.form.value) + 1) % 3] }, true); return;
    case 't': s.go({ view: 'map', form: 'table' }, true); return;
    case 'n': case 'p':
      if (s.view.value === 'flows' && e.key.toLowerCase() === 'p') live.pause(!live.paused.value);
      else if (on.id !== 'map' && s.view.value === 'map' && s.filtered.value) connection(e.key.toLowerCase() === 'n' ? 1 : -1);
  }
});

function App() {
  return (
    <>
      <a class="skip" href="#main" onClick={e => (e.preventDefault(), document.getElementById('main')?.focus())}>Skip to the content</a>
      <Header /><div class="lines"><FilterLine /><Strip /></div><Main /><Footer /><Help />
      <div class="sr" role="status" aria-live="polite">{s.spoken.value}</div>
    </>
  );
}

render(<App />, document.getElementById('app')!);
void s.load();
