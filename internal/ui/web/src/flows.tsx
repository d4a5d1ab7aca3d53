// Flows: what an observer saw. Without one the view says what works all the same.
import { Command, Empty } from './parts.tsx';
import * as s from './state.ts';

export function Flows() {
  return (
    <div class="page">
      <Empty title="No observer">
        <p>Flows, counts and “never used” come from an observer, and this map has none.</p>
        <p>Without one, these work: what may talk on the <button class="link" onClick={() => s.go({ view: 'map' }, true)}>map</button>, all <button class="link" onClick={() => s.go({ view: 'policies' }, true)}>policies</button>, and <button class="link" onClick={() => s.go({ view: 'whatif' }, true)}>what if</button>. Recent denials of the nodes:</p>
        <Command text="kubectl kidoban events" />
      </Empty>
    </div>
  );
}
