/** What a point can be: its code, name, and the mark that tells it from others without colour. */

import type { Counts } from './types';

/** Drawn in cells that are large enough, and in the legend. */
export type Mark = 'none' | 'cross' | 'bar' | 'clock' | 'dot' | 'slash' | 'ring';

export interface Status {
  code: number;
  name: keyof Counts;
  /** Custom property of its colour. */
  colour: string;
  mark: Mark;
}

/** Codes as stores write them; never changed. */
export const STATUSES: readonly Status[] = [
  { code: 0, name: 'pending', colour: '--mce-pending', mark: 'none' },
  { code: 1, name: 'running', colour: '--mce-running', mark: 'ring' },
  { code: 2, name: 'done', colour: '--mce-done', mark: 'none' },
  { code: 3, name: 'failed', colour: '--mce-failed', mark: 'cross' },
  { code: 4, name: 'killed', colour: '--mce-killed', mark: 'bar' },
  { code: 5, name: 'timeout', colour: '--mce-timeout', mark: 'clock' },
  { code: 6, name: 'skipped', colour: '--mce-skipped', mark: 'slash' },
  { code: 7, name: 'stale', colour: '--mce-stale', mark: 'dot' }
];

/** No point there: a guard left it out. */
export const EXCLUDED = 255;

/** In the order of a progress bar: what is settled first, what is to come last. */
export const ORDER: readonly (keyof Counts)[] = [
  'done',
  'skipped',
  'stale',
  'timeout',
  'killed',
  'failed',
  'running',
  'pending'
];

export const BAD: ReadonlySet<number> = new Set([3, 4, 5]);

export function statusOf(code: number): Status | undefined {
  return STATUSES[code];
}

export function named(name: string): Status | undefined {
  return STATUSES.find(status => status.name === name);
}

/** What to call it where people read: a timeout is something that happened to a point. */
export function title(name: string): string {
  return name === 'timeout' ? 'timed out' : name;
}

/** How telling each status is where several points share a pixel: bad news must not hide. Index: code. */
export const RANK: Uint8Array = (() => {
  const rank = new Uint8Array(256);
  [0, 6, 2, 7, 1, 5, 4, 3].forEach((code, place) => (rank[code] = place + 1));
  return rank;
})();
