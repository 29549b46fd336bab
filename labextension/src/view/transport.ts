/** How a view reaches its sweep: a server extension, or the kernel through a widget. */

import type { At, Cluster, Summary, View } from './types';

/** Which picture a view wants: the axes shown, and what to do with the others. */
export interface Choice {
  x: string | null;
  y: string | null;
  /** Position on an axis that is not shown; null aggregates over it. */
  at: At;
}

export type Connection = 'connecting' | 'open' | 'lost' | 'missing';

export interface Listener {
  view(view: View): void;
  /** The sweep is not there (any more). */
  gone(message: string): void;
  error(message: string): void;
  connection(state: Connection): void;
}

export interface Watch {
  choose(choice: Choice): void;
  dispose(): void;
}

export interface Transport {
  watch(key: string, choice: Choice, listener: Listener): Watch;
  get<T>(path: string): Promise<T>;
  post<T>(path: string, body: unknown): Promise<T>;
}

export interface Listing {
  sweeps: Summary[];
  clusters: Cluster[];
}

/** An answer that is no success; its message is what people read. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string
  ) {
    super(message);
    this.name = 'Refused';
  }
}

/** Turn any error into one line. */
export function told(error: unknown): string {
  return error instanceof Error && error.message ? error.message : String(error);
}
