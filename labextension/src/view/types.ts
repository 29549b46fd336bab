/** What the server says of sweeps and clusters, as JSON; `mce_notebook/view/live.py` makes it. */

export type State =
  'queued' | 'running' | 'paused' | 'done' | 'cancelled' | 'stopped' | 'interrupted';

export type Verb = 'cancel' | 'pause' | 'resume' | 'rerun-failed' | 'rerun-stale';

export interface Counts {
  pending: number;
  running: number;
  done: number;
  failed: number;
  killed: number;
  timeout: number;
  skipped: number;
  stale: number;
}

export interface Summary {
  key: string;
  name: string;
  root: string;
  folder: string;
  state: State;
  total: number;
  known: number;
  counts: Counts;
  /** Points per second. */
  rate: number;
  /** Seconds left, best and worst case. */
  eta: [number, number] | null;
  workers: number;
  elapsed: number;
  cost: { amount: number; currency: string } | null;
  message: string;
  cluster: string;
  notebook: string;
  created: string;
  actions: Verb[];
}

export interface Axis {
  name: string;
  size: number;
  kind: 'number' | 'category' | 'time' | 'bool';
  /** All labels up to 512 of them, otherwise some, evenly spaced, with both ends. */
  labels: string[];
  /** The position on the axis of each of these labels. */
  positions: number[];
  log: boolean;
}

export type At = Record<string, number | null>;

export interface Heatmap {
  x: string;
  y: string | null;
  width: number;
  height: number;
  /** Labels of the axis per cell. */
  bin: [number, number];
  at: At;
  /** Base64 of deflated bytes, two a cell, row by row: status, share known. */
  cells: string;
}

export interface View extends Summary {
  axes: Axis[];
  outputs: string[];
  causes: { cause: string; count: number }[];
  regions: { cause: string; count: number; rule: string }[];
  heatmap: Heatmap | null;
  problems: string[];
  provenance: { version: string; python: string; seed: string | number; declared: string };
}

export interface Cluster {
  key: string;
  name: string;
  kind: string;
  state: string;
  workers: number;
  slots: number;
  since: string;
  sweeps: string[];
  address: string;
  cost_per_hour: number | null;
  message: string;
}

export interface FailureRow {
  index: number;
  labels: Record<string, string>;
  status: string;
  cause: string;
  type: string;
  message: string;
  where: string;
  replay: string;
}

export interface PointDetail extends Partial<FailureRow> {
  status: string;
  traceback: string;
  output: string;
  seconds: number | null;
  worker: string | null;
  values: Record<string, string>;
}

/** What a cell's output holds of its sweep: enough to find it, and its last state. */
export interface SweepOutput {
  name: string;
  root: string;
  id: string;
  state?: Partial<Summary>;
}
