// Where the observer serves the page, a reader enters a token once: the server keeps it in a cookie that scripts cannot read.
import { useState } from 'preact/hooks';
import * as api from './api.ts';
import { Command } from './parts.tsx';
import * as s from './state.ts';
import { plain } from './text.ts';

export function Token({ failure }: { failure: api.Failure }) {
  const [token, set] = useState(''), [wrong, say] = useState(''), [busy, wait] = useState(false);
  const send = async () => {
    wait(true);
    try {
      await api.postToken(token.trim());
      set('');
      await s.load();
    } catch (e) {
      say(e instanceof api.Failure ? e.answered : String(e));
    }
    wait(false);
  };
  return (
    <form class="state" onSubmit={e => (e.preventDefault(), token.trim() && !busy && void send())}>
      <h2>Who reads?</h2>
      <p>{plain(failure.answered)}</p>
      <p>A token of a ServiceAccount that may read flows:</p>
      <Command text="kubectl -n kidoban-system create token kidoban-viewer --audience=kidoban-observer --duration=8h" />
      <input type="text" autocomplete="username" value="kidoban" hidden />
      <label for="token"><b>Token</b></label>
      <input id="token" class="token" type="password" autocomplete="off" value={token} onInput={e => set(e.currentTarget.value)} />
      <div class="actions"><button class="button primary" disabled={!token.trim() || busy}>Continue</button></div>
      {wrong && <p class="warn" role="alert">{plain(wrong)}</p>}
    </form>
  );
}
