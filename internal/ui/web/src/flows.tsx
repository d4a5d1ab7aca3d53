// Flows: what an observer saw. Without one the view says what works all the same.
import { Command, Empty } from './parts.tsx';
import * as s from './state.ts';

export function Flows() {
  const c = s.cluster.value;
  if (c?.traffic) {
    return (
      <div class="page">
        <Empty title="Flows are on the map">
          <p>The observer’s flows are summed up by workload: open a connection on the map or in the table for its counts.</p>
          <div class="actions"><button class="button primary" onClick={() => s.go({ view: 'map', form: 'table', mode: 'does' }, true)}>What does talk, as a table</button></div>
        </Empty>
      </div>
    );
  }
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
