// Flows: what an observer saw, as it arrives. Without one the view says what works all the same.
import { useState } from 'preact/hooks';
import type { SeenFlow } from './api.ts';
import * as live from './live.ts';
import { lossText, missedText } from './missing.ts';
import { WORD } from './model.ts';
import { Command, Empty, Failed, Name, NoMatch, Sign } from './parts.tsx';
import { decider, endDetail, endName, flowKey, flowsCsv, flowsJson, verdictOf } from './seenflow.ts';
import * as s from './state.ts';
import { count, plain, plural } from './text.ts';

const PAGE = 50;

export function Flows() {
  const c = s.cluster.value;
  if (c && !c.covered) return <NoObserver />;
  const failure = live.failed.value;
  if (failure?.rights) return <NoRights text={failure.answered} />;
  if (failure) return <div class="page"><Failed failure={failure} again={live.again} /></div>;
  if (!live.read.value) return <div class="page" aria-busy="true"><p class="soft late">Reading flows …</p></div>;
  return (
    <div class="page flows">
      <Bar />
      <Reports />
      {live.shown.value.length ? <List list={live.shown.value} /> : live.rows.value.length ? <NoMatch /> : <Nothing />}
    </div>
  );
}

/** A reader without rights sees how to get them. */
export function NoRights({ text }: { text: string }) {
  return (
    <div class="page">
      <Empty title="You have no rights to see this">
        <p class="mono">{plain(text)}</p>
        <p>Flows of a namespace need the right to <code>get</code> <code>flows</code> of <code>kidoban.dev</code> in it, which this gives to a user:</p>
        <Command text="kubectl create rolebinding flows --clusterrole=kidoban-flow-reader --user=USER -n NAMESPACE" />
        <div class="actions"><button class="button primary" onClick={() => (live.again(), void s.load())}>Try again</button></div>
      </Empty>
    </div>
  );
}

function Nothing() {
  const since = live.coverage.value?.coverage.completeSince;
  return (
    <Empty title="Nothing seen yet">
      <p>{`No pod has opened a connection${s.address.value.text ? ' that the filter asks for' : ''} in this time. New ones appear here within some seconds.`}</p>
      {since && <p>{`The observer has all flows since ${moment(since)}.`}</p>}
      <p class="soft">Agents push records if OBSERVER=true is among their settings: docs/observer.md.</p>
    </Empty>
  );
}

function Bar() {
  const list = live.shown.value, paused = live.paused.value;
  return (
    <div class="actions flowActions">
      <button class="button" aria-pressed={paused} onClick={() => live.pause(!paused)}>{paused ? `Continue${live.waiting.value ? ` (${count(live.waiting.value)} new)` : ''}` : 'Pause'}</button>
      <button class="button" disabled={!list.length} onClick={() => save('flows.csv', 'text/csv', flowsCsv(list))}>Export CSV</button>
      <button class="button" disabled={!list.length} onClick={() => save('flows.jsonl', 'application/x-ndjson', flowsJson(list))}>Export JSON</button>
      <span class="soft">{`${plural(list.length, 'flow')} of the newest ${count(live.rows.value.length)}. Click one to see what decides it.`}</span>
    </div>
  );
}

function save(name: string, type: string, text: string): void {
  const a = document.createElement('a');
  a.href = URL.createObjectURL(new Blob([text], { type }));
  a.download = name;
  a.click();
  URL.revokeObjectURL(a.href);
}

/** What is missing. */
function Reports() {
  const away = live.away.value, answer = live.coverage.value, losses = live.losses.value, missed = live.missing.value.missed, from = answer?.coverage.completeSince;
  return (
    <>
      {away && <p class="strip" role="alert">{`▲ The observer is away since ${away.since.toLocaleTimeString()}: ${plain(away.error)} The flows below are those until then.`}</p>}
      {losses.length > 0 && <p class="hint warn" role="status">{`▲ ${lossText(losses)}`}</p>}
      {missed > 0 && <p class="hint warn" role="status">{`▲ ${missedText(missed)}`} <button class="link" onClick={() => live.again()}>Read again</button></p>}
      {from && live.rows.value.length > 0 && <p class="hint">{`The observer has all flows since ${moment(from)}.`}</p>}
      {!!answer?.hidden?.length && <p class="hint">{`Of ${plural(answer.hidden.length, 'namespace')} you see names only: ${answer.hidden.map(plain).join(', ')}.`}</p>}
    </>
  );
}

const moment = (t: string) => new Date(t).toLocaleString();

function List({ list }: { list: SeenFlow[] }) {
  const [page, turn] = useState(0), pages = Math.ceil(list.length / PAGE), at = Math.min(page, pages - 1);
  const older = (n: number) => {
    if (n > 0) live.pause(true); // older flows would move away while they are read
    turn(n);
  };
  return (
    <>
      <table class="list">
        <caption class="sr">{`${count(list.length)} flows, the newest first`}</caption>
        <thead><tr><th scope="col">Last</th><th scope="col">Verdict</th><th scope="col">From</th><th scope="col">To</th><th scope="col">Port</th><th scope="col" class="right">Connections</th><th scope="col">Decided by</th></tr></thead>
        <tbody>{list.slice(at * PAGE, at * PAGE + PAGE).map(f => <Row key={flowKey(f)} f={f} />)}</tbody>
      </table>
      <div class="pager">
        <button class="button" disabled={at <= 0} onClick={() => older(at - 1)}>Newer</button>
        <span>{`${count(at * PAGE + 1)} to ${count(Math.min(at * PAGE + PAGE, list.length))} of ${count(list.length)}`}</span>
        <button class="button" disabled={at >= pages - 1} onClick={() => older(at + 1)}>Older</button>
      </div>
    </>
  );
}

function Row({ f }: { f: SeenFlow }) {
  const v = verdictOf(f), c = s.cluster.value, from = endName(f.source), to = endName(f.destination);
  const edge = c && f.from && f.to && !f.reply && c.byId.has(f.from) && c.byId.has(f.to) ? `${f.from}>${f.to}` : '';
  const explain = () => s.go({ view: 'map', selected: edge }, true);
  return (
    <tr onClick={edge ? explain : undefined} class={edge ? '' : 'inert'}>
      <td class="mono" title={moment(f.last)}>{new Date(f.last).toLocaleTimeString()}</td>
      <td><Sign v={v} /> {WORD[v]}</td>
      <td title={plain(endDetail(f.source))}>{edge
        ? <button class="plain" onClick={e => (e.stopPropagation(), explain())} aria-label={`Explain ${plain(from)} to ${plain(to)}`}><Name id={from} /></button> : <Name id={from} />}</td>
      <td title={plain(endDetail(f.destination))}><Name id={to} />{f.service && <span class="soft">{` (${plain(f.service)})`}</span>}</td>
      <td class="mono">{f.port || ''}{f.protocol === 'TCP' ? '' : `/${f.protocol}`}</td>
      <td class="right mono">{f.reply ? 'answers' : f.continues ? 'continues' : count(f.connections)}</td>
      <td class="soft">{plain(decider(f))}{f.sides === 'OneSide' && ' · reported by one node'}</td>
    </tr>
  );
}

function NoObserver() {
  return (
    <div class="page">
      <Empty title="No observer">
        <p>Flows, counts and “never used” come from an observer, and this map has none.</p>
        <p>Install it:</p>
        <Command text="kubectl apply -k config/overlays/observer" />
        <p>Without one, these work: what may talk on the <button class="link" onClick={() => s.go({ view: 'map' }, true)}>map</button>, all <button class="link" onClick={() => s.go({ view: 'policies' }, true)}>policies</button>, and <button class="link" onClick={() => s.go({ view: 'whatif' }, true)}>what if</button>. Recent denials of the nodes:</p>
        <Command text="kubectl kidoban events" />
      </Empty>
    </div>
  );
}
