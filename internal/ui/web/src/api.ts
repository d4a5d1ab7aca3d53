// Questions to the server that served the page. Addresses are relative: the page may be under a path prefix.
import type { Wire } from './model.ts';

export interface Rule { kind?: string; policy: string; priority?: number; name?: string; path: string; quote: string; unreadable?: string }
export interface Half {
  direction: 'Ingress' | 'Egress'; of: string; verdict: 'allowed' | 'denied' | 'depends'; reason: string;
  isolating?: string[]; rule?: Rule; nearest?: (Rule & { why: string[] })[]; tiers?: { tier: string; outcome: string; rule?: Rule }[]; assumes?: string;
}
export interface Flow {
  source: { pod?: string; namespace?: string }; destination: { pod?: string; namespace?: string };
  verdict: Half['verdict']; always?: string; halves?: Half[]; ifEnforced?: { verdict: string; halves: Half[] }; hint?: string; notes?: string[];
}
export interface EdgePort { port: number; protocol: string; answer: { verdict: Half['verdict']; flows: Flow[]; notes?: string[] }; sentences: string[][]; text: string; command: string }
export interface EdgeAnswer { from: string; to: string; ports: EdgePort[]; policies: Record<string, string> }

export interface Selected { nodes?: number[]; rules: number; isolates: boolean }
export interface Policy {
  id: string; kind: string; namespace?: string; name: string; tier: string; priority?: number; audit?: boolean; ingress: Selected; egress: Selected; source?: string;
}
export interface PolicyDetail extends Policy { rules: { path: string; name?: string; action: string; yaml: string }[]; yaml: string }

export interface ChangedPair { from: string; to: string; gained: string; lost: string; some?: boolean; depends?: boolean }
export interface WhatIf {
  added: string[]; changed: string[]; removed: string[]; pairs: ChangedPair[]; newWorkloads: string[]; goneWorkloads: string[];
  notes: string[] | null; read: Record<string, number>; text: string;
}

/** What was asked and what answered, for a person. */
export class Failure extends Error {
  constructor(readonly asked: string, readonly answered: string) {
    super(`${asked}: ${answered}`);
  }
}

async function ask<T>(what: string, path: string, init?: RequestInit): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(path, { ...init, credentials: 'same-origin' });
  } catch {
    throw new Failure(what, 'no answer: is kubectl kidoban ui still running?');
  }
  const text = await answer.text();
  if (!answer.ok) {
    let said = text;
    try {
      said = (JSON.parse(text) as { error: string }).error;
    } catch { /* not an object: the text says it */ }
    throw new Failure(what, said.trim() || `status ${answer.status}`);
  }
  return JSON.parse(text) as T;
}

export const getGraph = (since: string) => ask<Wire>('the map', `api/graph?${new URLSearchParams({ since })}`);
export const getEdge = (from: string, to: string) => ask<EdgeAnswer>(`${from} → ${to}`, `api/edge?${new URLSearchParams({ from, to })}`);
export const getPolicies = () => ask<{ policies: Policy[] }>('the policies', 'api/policies').then(a => a.policies);
export const getPolicy = (id: string) => ask<PolicyDetail>(id, `api/policy?${new URLSearchParams({ id })}`);
export const postWhatIf = (manifests: string) => ask<WhatIf>('the change', 'api/whatif', { method: 'POST', body: manifests });
