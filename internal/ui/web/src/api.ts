// Questions to the server that served the page. Addresses are relative: the page may be under a path prefix.
import type { Coverage } from './missing.ts';
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

/** One end of a flow. */
export interface End {
  namespace?: string; pod?: string; workload?: { kind: string; name: string }; node?: string; isNode?: boolean; address?: string; domainNames?: string[]; hidden?: boolean;
}
export interface PolicyRef { kind: string; namespace?: string; name: string }
export interface RuleRef extends PolicyRef { ruleName?: string; rules?: number[] }
export interface Decision { verdict: string; reason: string; tier?: string; policy?: RuleRef; isolatedBy?: PolicyRef[]; audited?: string; auditedBy?: PolicyRef[] }
/** A flow as the observer has it, with the IDs of its ends on the map. */
export interface SeenFlow {
  first: string; last: string; source: End; destination: End; service?: string; protocol: string; port?: number;
  verdict: 'Allowed' | 'Denied' | 'WouldBeDenied' | 'WouldBeAllowed'; egress?: Decision; ingress?: Decision; sides: 'Complete' | 'OneSide';
  connections: number; continues?: boolean; reply?: boolean; from?: string; to?: string;
}
export interface FlowsAnswer { coverage: Coverage; hidden?: string[]; flows: SeenFlow[] }

/** How often a rule decided, or a default because of a policy. */
export interface Hit extends RuleRef { direction: 'Ingress' | 'Egress'; verdict: SeenFlow['verdict']; reason: string; tier?: string; connections: number; last: string }
export interface HitsAnswer { coverage: Coverage; hits: Hit[] | null }

export interface PolicyInForce {
  nodes: number; inForce: number; resolved: string; message?: string; auditedSince?: string; waiting?: { node: string; state: string; reason?: string }[];
}
export interface WorkloadInForce { pods: number; inForce: number; nodes: string[]; waiting?: string[]; audit?: number }
export interface InForceAnswer { policies: Record<string, PolicyInForce>; workloads: Record<string, WorkloadInForce>; problems?: string[] }

interface Count { connections: number }
/** Which recorded connections would get another verdict, by pair of nodes; an end that is not on the map is empty. */
export interface Replayed { complete: boolean; judged: Count; unknown?: Count[]; edges: { from: string; to: string; denied: number; allowed: number }[] }
/** Policies that allow what was recorded in a namespace. */
export interface Recommended { yaml: string; complete: boolean; policies: unknown[]; proof: { allowed: Count; denied: Count }; decisions?: unknown[] }

/** What was asked and what answered, for a person. */
export class Failure extends Error {
  constructor(readonly asked: string, readonly answered: string, readonly rights = false, readonly token = false) {
    super(`${asked}: ${answered}`);
  }
}

async function ask<T>(what: string, path: string, init?: RequestInit): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(path, { ...init, credentials: 'same-origin' });
  } catch {
    throw new Failure(what, 'no answer of the map’s server: is kubectl kidoban ui still running?');
  }
  const text = await answer.text();
  if (!answer.ok) {
    let problem: { error: string; rights?: boolean } = { error: text };
    try {
      problem = JSON.parse(text) as typeof problem;
    } catch { /* not an object: the text says it */ }
    throw new Failure(what, problem.error.trim() || `status ${answer.status}`, problem.rights, answer.status === 401);
  }
  return JSON.parse(text) as T;
}

export const getGraph = (since: string) => ask<Wire>('the map', `api/graph?${new URLSearchParams({ since })}`);
/** Ports as 5432/TCP or other/TCP; without any, those that policies have between the two. */
export const getEdge = (from: string, to: string, ports: string[]) =>
  ask<EdgeAnswer>(`${from} → ${to}`, `api/edge?${new URLSearchParams([['from', from], ['to', to], ...ports.map(p => ['port', p])])}`);
export const getPolicies = () => ask<{ policies: Policy[] }>('the policies', 'api/policies').then(a => a.policies);
export const getPolicy = (id: string) => ask<PolicyDetail>(id, `api/policy?${new URLSearchParams({ id })}`);
export const postWhatIf = (manifests: string) => ask<WhatIf>('the change', 'api/whatif', { method: 'POST', body: manifests });

export const postReplay = (manifests: string, since: string) => ask<Replayed>('the recorded connections', `api/replay?${new URLSearchParams({ since })}`, { method: 'POST', body: manifests });
export const getRecommended = (namespace: string, since: string) => ask<Recommended>(`policies for ${namespace}`, `api/recommend?${new URLSearchParams({ namespace, since })}`);

/** The newest flows first. Parameters are those of the observer's API. */
export const getFlows = (query: Record<string, string>) => ask<FlowsAnswer>('flows', `api/flows?${new URLSearchParams(query)}`);
/** Flows as they arrive. */
export const followFlows = (query: Record<string, string>) => new EventSource(`api/flows/live?${new URLSearchParams(query)}`);
export const getHits = (since: string) => ask<HitsAnswer>('how often rules decided', `api/hits?${new URLSearchParams({ since })}`);
export const getInForce = () => ask<InForceAnswer>('what is in force', 'api/inforce');
/** Exchanges a token for a cookie, where the page is served to readers with tokens. */
export const postToken = (token: string) => ask<object>('the token', 'api/token', { method: 'POST', body: token });
