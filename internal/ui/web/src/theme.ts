// Light and dark: the system's, until a user chooses.
import { effect, signal } from '@preact/signals';

const dark = matchMedia('(prefers-color-scheme: dark)');
function stored(): string | null {
  try {
    return localStorage.getItem('kidoban-theme');
  } catch {
    return null;
  }
}
export const theme = signal<'light' | 'dark'>((stored() as 'light' | 'dark' | null) ?? (dark.matches ? 'dark' : 'light'));
dark.addEventListener('change', e => {
  if (!stored()) theme.value = e.matches ? 'dark' : 'light';
});
effect(() => {
  document.documentElement.dataset.theme = theme.value;
});
export function turn(): void {
  theme.value = theme.value === 'dark' ? 'light' : 'dark';
  try {
    localStorage.setItem('kidoban-theme', theme.value);
  } catch { /* a browser that keeps nothing */ }
}
