// What manifests would change, before they are applied: the static diff, as lists and on the map.
import { useState } from 'preact/hooks';
import * as api from './api.ts';
import { Graph } from './map.tsx';
import { Copy, Failed, Name } from './parts.tsx';
import * as s from './state.ts';
import { count, plain, plural } from './text.ts';

const text = { value: '' }; // what was typed stays when the view changes

export function WhatIf() {
  const [manifests, set] = useState(text.value), [failure, fail] = useState<api.Failure>(), [busy, wait] = useState(false), [over, drag] = useState(false);
  const [late, lag] = useState<api.Failure>(), w = s.change.value, c = s.cluster.value;
  const write = (t: string) => {
    text.value = t;
    set(t);
  };
  const ask = async (t: string) => {
    wait(true);
    fail(undefined);
    lag(undefined);
    s.replayed.value = undefined;
    try {
      s.change.value = await api.postWhatIf(t);
      s.spoken.value = summary(s.change.value);
      if (c?.replay) {
        await api.postReplay(t, s.address.value.since).then(r => (s.replayed.value = r), (e: unknown) => lag(e instanceof api.Failure ? e : new api.Failure('the recorded connections', String(e))));
      }
    } catch (e) {
      s.change.value = undefined;
      fail(e instanceof api.Failure ? e : new api.Failure('the change', String(e)));
    }
    wait(false);
  };
  const files = async (list: FileList | null | undefined) => {
    if (!list?.length) return;
    const t = (await Promise.all([...list].map(f => f.text()))).join('\n---\n');
    write(t);
    await ask(t);
  };
  return (
    <div class="whatif">
      <section class={`side ${over ? 'over' : ''}`} aria-label="Manifests"
        onDragOver={e => (e.preventDefault(), drag(true))} onDragLeave={() => drag(false)}
        onDrop={e => (e.preventDefault(), drag(false), void files(e.dataTransfer?.files))}>
        <h2><label for="manifests">Manifests</label></h2>
        <p class="soft">What would they change? Paste policies, and workloads if you like.</p>
        <textarea id="manifests" spellcheck={false} value={manifests} placeholder="Paste YAML, or drop files here." onInput={e => write(e.currentTarget.value)} />
        <div class="actions">
          <button class="button primary" disabled={!manifests.trim() || busy} onClick={() => void ask(manifests)}>{busy ? 'Comparing …' : 'Compare'}</button>
          <label class="button">Open files<input class="sr" type="file" multiple onChange={e => void files(e.currentTarget.files)} /></label>
          {(w || manifests) && <button class="button" onClick={() => (write(''), fail(undefined), lag(undefined), (s.change.value = s.replayed.value = undefined))}>Clear</button>}
        </div>
        <p class="soft">Nothing is applied. The answer is that of <code>kubectl kidoban diff</code>.</p>
        {failure && <Failed failure={failure} again={() => void ask(manifests)} />}
        {w && s.replayed.value && <Effect r={s.replayed.value} />}
        {w && late && <p class="hint warn" role="alert">{`▲ ${plain(late.message)}`}</p>}
        {w && <Answer w={w} />}
        {!w && c?.replay && <Recommend take={t => (write(t), void ask(t))} />}
      </section>
      <Graph />
    </div>
  );
}

const SPAN: Record<string, string> = { '1h': 'hour', '6h': '6 hours', '24h': '24 hours', '168h': '7 days' };
const sum = (list: number[]) => list.reduce((a, b) => a + b, 0);

/** What the change would do to connections that were recorded. */
function Effect({ r }: { r: api.Replayed }) {
  const denied = sum(r.edges.map(e => e.denied)), allowed = sum(r.edges.map(e => e.allowed)), unknown = sum(r.unknown?.map(u => u.connections) ?? []), c = s.cluster.value!;
  const list = r.edges.slice().sort((a, b) => b.denied - a.denied || b.allowed - a.allowed);
  return (
    <div class="answer">
      <p class="why" role="status"><b>{`Of ${plural(r.judged.connections, 'connection')} in the last ${SPAN[s.address.value.since]}, ${count(denied)} would be denied and ${count(allowed)} allowed that were not.`}</b></p>
      {!r.complete && <p class="hint warn">▲ The recording has gaps: there may be more.</p>}
      {unknown > 0 && <p class="hint">{`${plural(unknown, 'connection')} cannot be decided.`}</p>}
      <ul class="peers">{list.slice(0, 60).map(e => {
        const known = c.byId.has(e.from) && c.byId.has(e.to);
        return <li><button disabled={!known} onClick={() => s.select(e.from + '>' + e.to)}>
          <span class={`sign ${e.denied ? 'denied' : 'allowed'}`} aria-hidden="true">{e.denied ? '✘' : '✔'}</span>
          <span class="grow"><Name id={e.from || 'not on the map'} /> → <Name id={e.to || 'not on the map'} /></span>
          <span class="mono soft">{[e.denied && `${count(e.denied)} denied`, e.allowed && `${count(e.allowed)} allowed`].filter(Boolean).join(', ')}</span></button></li>;
      })}{list.length > 60 && <li class="more">{`and ${count(list.length - 60)} more pairs`}</li>}</ul>
    </div>
  );
}

/** Policies that allow what a namespace's workloads did, to compare with what is in force. */
function Recommend({ take }: { take: (yaml: string) => void }) {
  const c = s.cluster.value!, [ns, pick] = useState(c.namespaces[0] ?? ''), [busy, wait] = useState(false), [wrong, say] = useState(''), [answer, got] = useState<api.Recommended>();
  const ask = async () => {
    wait(true);
    say('');
    got(undefined);
    try {
      got(await api.getRecommended(ns, s.address.value.since));
    } catch (e) {
      say(e instanceof api.Failure ? e.answered : String(e));
    }
    wait(false);
  };
  return (
    <div class="answer">
      <h3>Recommend policies</h3>
      <p class="soft">{`They allow what the workloads of a namespace did in the last ${SPAN[s.address.value.since]}, and nothing else.`}</p>
      <div class="actions">
        <select aria-label="Namespace" value={ns} onChange={e => pick(e.currentTarget.value)}>{c.namespaces.map(n => <option value={n}>{plain(n)}</option>)}</select>
        <button class="button" disabled={busy || !ns} onClick={() => void ask()}>{busy ? 'Reading flows …' : 'Recommend'}</button>
      </div>
      {wrong && <p class="hint warn" role="alert">{`▲ ${plain(wrong)}`}</p>}
      {answer && (
        <>
          <p role="status"><b>{`${plural(answer.policies.length, 'policy', 'policies')}: ${plural(answer.proof.allowed.connections, 'recorded connection stays', 'recorded connections stay')} allowed, ${count(answer.proof.denied.connections)} would be denied.`}</b>
            {!answer.complete && <span class="warn"> ▲ The recording has gaps.</span>}</p>
          {!!answer.decisions?.length && <p class="hint">{`${plural(answer.decisions.length, 'kind')} of traffic ${answer.decisions.length === 1 ? 'needs' : 'need'} a decision: see the comments of the manifests.`}</p>}
          <div class="actions"><button class="button primary" onClick={() => take(answer.yaml)}>Compare before and after</button></div>
        </>
      )}
    </div>
  );
}

const READ: Record<string, [string, string]> = {
  policies: ['NetworkPolicy', 'NetworkPolicies'], clusterPolicies: ['ClusterNetworkPolicy', 'ClusterNetworkPolicies'], workloads: ['workload', 'workloads'],
};

function summary(w: api.WhatIf): string {
  const unknown = w.pairs.filter(p => p.depends).length, lost = w.pairs.filter(p => p.lost && !p.depends).length, gained = w.pairs.filter(p => p.gained && !p.depends).length;
  if (!w.pairs.length) return 'No pair gains or loses a port.';
  return `${plural(lost, 'pair loses', 'pairs lose')} ports, ${plural(gained, 'pair gains', 'pairs gain')} some${unknown ? `; ${plural(unknown, 'pair')} cannot be decided` : ''}.`;
}

function Answer({ w }: { w: api.WhatIf }) {
  const groups: [string, string, string, (p: api.ChangedPair) => string][] = [
    ['Lost', '−', 'denied', p => (p.depends ? '' : p.lost)], ['Gained', '+', 'allowed', p => (p.depends ? '' : p.gained)],
    ['Depends on an address that is not known', '?', 'unused', p => (p.depends ? [p.lost && `loses ${p.lost}`, p.gained && `gains ${p.gained}`].filter(Boolean).join(', ') : '')],
  ];
  const changed = [...w.added.map(n => ['+', n]), ...w.changed.map(n => ['~', n]), ...w.removed.map(n => ['−', n])];
  return (
    <div class="answer">
      <p class="why" role="status"><b>{summary(w)}</b></p>
      <p class="soft">{`Read: ${Object.entries(w.read).filter(([, n]) => n).map(([what, n]) => plural(n, ...READ[what])).join(', ') || 'nothing that policies are about'}.`}</p>
      {changed.length > 0 && <ul class="plainList">{changed.map(([sign, n]) => <li><span class="mono">{sign}</span> {plain(n)}</li>)}</ul>}
      {groups.map(([title, sign, style, of]) => {
        const list = w.pairs.filter(p => of(p));
        return list.length > 0 && (
          <section>
            <h3><span class={`sign ${style}`} aria-hidden="true">{sign}</span>{title}<span class="tally">{count(list.length)}</span></h3>
            <ul class="peers">{list.slice(0, 60).map(p => <li><button onClick={() => s.select(p.from + '>' + p.to)}>
              <span class="grow"><Name id={p.from} /> → <Name id={p.to} /></span><span class="mono soft">{of(p)}{p.some ? ', some pods' : ''}</span></button></li>)}
            {list.length > 60 && <li class="more">{`and ${count(list.length - 60)} more, which the text has`}</li>}</ul>
          </section>
        );
      })}
      {w.newWorkloads?.length > 0 && <p class="hint">{`New, not compared: ${w.newWorkloads.map(plain).join(', ')}`}</p>}
      {w.goneWorkloads?.length > 0 && <p class="hint">{`Gone, not compared: ${w.goneWorkloads.map(plain).join(', ')}`}</p>}
      {w.notes?.map(n => <p class="hint">{plain(n)}</p>)}
      <div class="actions"><Copy label="Copy as Markdown" text={'```\n' + w.text.trimEnd() + '\n```\n'} /></div>
    </div>
  );
}
