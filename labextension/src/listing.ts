/** What the panel, the status bar and the commands say of a list of sweeps; pure. */

import { integer, left, points } from './view/format';
import type { Listing } from './view/transport';
import type { Cluster, Summary, Verb } from './view/types';

/** States in which something is going on, or will without anybody's doing. */
export function active(sweep: Summary): boolean {
  return sweep.state === 'running' || sweep.state === 'queued';
}

const ORDER: Record<Summary['state'], number> = {
  running: 0,
  queued: 1,
  paused: 2,
  interrupted: 2,
  stopped: 2,
  cancelled: 3,
  done: 3
};

/** Running ones first, then those that wait for somebody, then the newest. */
export function sorted(sweeps: Summary[]): Summary[] {
  return [...sweeps].sort(
    (a, b) =>
      ORDER[a.state] - ORDER[b.state] ||
      b.created.localeCompare(a.created) ||
      a.name.localeCompare(b.name)
  );
}

/** Those of which every word typed is found in name, state, cluster, folder or notebook. */
export function filtered(sweeps: Summary[], typed: string): Summary[] {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  return sweeps.filter(sweep => {
    const text = [sweep.name, stateText(sweep), sweep.cluster, sweep.root, sweep.notebook]
      .join('\n')
      .toLowerCase();
    return words.every(word => text.includes(word));
  });
}

export function failures(sweep: Summary): number {
  return sweep.counts.failed + sweep.counts.killed + sweep.counts.timeout;
}

/** A state as people say it. */
export function stateText(sweep: Summary): string {
  return sweep.state === 'queued' ? 'waiting' : sweep.state;
}

/** The words beside a sweep's name: how long it takes, or its state. */
export function aside(sweep: Summary): string {
  return (sweep.state === 'running' && left(sweep.eta)) || stateText(sweep);
}

/** The line below a sweep's name: how far it is, and what went wrong. */
export function detail(sweep: Summary): string {
  // While a slow guard is evaluated nobody knows how many points there are; the message tells how far that is.
  const guarded = sweep.total === 0 && sweep.state !== 'done' && sweep.message !== '';
  const parts = [
    guarded ? (sweep.state === 'running' ? sweep.message : '') : points(sweep.known, sweep.total)
  ];
  if (failures(sweep) > 0) {
    parts.push(`${integer(failures(sweep))} failed`);
  }
  if (sweep.counts.stale > 0) {
    parts.push(`${integer(sweep.counts.stale)} stale`);
  }
  return parts.filter(Boolean).join(' · ');
}

/** A moment as short as it is clear: the time of today, else the day. */
export function since(iso: string, now = new Date()): string {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) {
    return '';
  }
  return date.toDateString() === now.toDateString()
    ? `since ${date.toLocaleTimeString(undefined, { timeStyle: 'short' })}`
    : `since ${date.toLocaleDateString(undefined, { dateStyle: 'medium' })}`;
}

/** Share of a sweep's points that are known, and of those that went wrong, between 0 and 1. */
export function shares(sweep: Summary): { known: number; failed: number } {
  const total = Math.max(1, sweep.total);
  return {
    known: Math.min(1, sweep.known / total),
    failed: Math.min(1, failures(sweep) / total)
  };
}

/** What the status bar says. */
export function statusText(listing: Listing): string {
  const running = listing.sweeps.filter(one => one.state === 'running').length;
  const waiting = listing.sweeps.filter(one => one.state === 'queued').length;
  const parts = [running ? `${running} running` : '', waiting ? `${waiting} waiting` : ''];
  return parts.filter(Boolean).join(', ');
}

/** Sweeps that run on a cluster now, by name. */
export function busy(cluster: Cluster, listing: Listing): string[] {
  const running = new Set(listing.sweeps.filter(active).map(one => one.name));
  return cluster.sweeps.filter(name => running.has(name));
}

/** The sweep of a name, rather that of a notebook than another of the same name; the newest one of several. */
export function named(listing: Listing, name: string, notebook: string): Summary | undefined {
  const same = sorted(listing.sweeps.filter(one => one.name === name));
  return same.find(one => notebook !== '' && one.notebook === notebook) ?? same[0];
}

/** Python that opens a sweep; with its folder where there are several. */
export function openCode(sweep: Summary, listing: Listing, source: string): string {
  const roots = new Set(listing.sweeps.map(one => one.root));
  const store = roots.size > 1 ? `, store=${JSON.stringify(sweep.root)}` : '';
  const imported = /^\s*import mce_notebook as mce\b/m.test(source);
  const head = imported ? '' : 'import mce_notebook as mce\n\n';
  return `${head}${sweep.name} = mce.open(${JSON.stringify(sweep.name)}${store})`;
}

/** What is offered for a sweep besides opening it. */
export const VERBS: Record<Verb, string> = {
  cancel: 'Stop',
  pause: 'Pause',
  resume: 'Resume',
  'rerun-failed': 'Rerun failed',
  'rerun-stale': 'Rerun stale'
};
