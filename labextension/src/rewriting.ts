/** What the server says of a cell that is to become a sweep, and what is offered then; pure. */

export interface Offer {
  title: string;
  line: number | null;
  cell: string;
  diff: string;
}

export interface Rewrite {
  ok: boolean;
  /** The whole cell with its first line; null where there is none. */
  cell: string | null;
  diff: string;
  name: string;
  axes: { name: string; source: string }[];
  outputs: string[];
  setup: string[];
  notes: string[];
  offers: Offer[];
  error: {
    message: string;
    line: number | null;
    cause: string;
    fix: string;
    cell: string | null;
    diff: string;
  } | null;
  /** Statements after the loops, for a cell below. */
  tail: string | null;
}

export interface Way {
  title: string;
  cell: string;
}

/** The cells that could be put in place, the best one first; none for hopeless loops. */
export function ways(rewrite: Rewrite): Way[] {
  const found: Way[] = [];
  if (rewrite.ok && rewrite.cell !== null) {
    found.push({ title: 'As it is', cell: rewrite.cell.trimEnd() });
  } else if (rewrite.error?.cell) {
    found.push({ title: 'With the change below', cell: rewrite.error.cell.trimEnd() });
  }
  for (const { title, cell: offered } of rewrite.offers) {
    const cell = offered.trimEnd();
    if (cell && !found.some(one => one.cell === cell)) {
      found.push({ title, cell });
    }
  }
  return found;
}

export type Verdict = 'good' | 'mendable' | 'hopeless' | 'same';

/** What a rewriting comes to. */
export function verdict(rewrite: Rewrite, source: string): Verdict {
  const found = ways(rewrite);
  if (found.length === 0) {
    return 'hopeless';
  }
  if (!rewrite.ok) {
    return 'mendable';
  }
  return found.length === 1 && found[0].cell.trim() === source.trim() ? 'same' : 'good';
}

/** Whether a notebook loads us somewhere; without that IPython does not know `%%sweep`. */
export function loads(sources: Iterable<string>): boolean {
  for (const source of sources) {
    if (/^\s*%(load_ext|reload_ext)\s+mce_notebook\b/m.test(source)) {
      return true;
    }
  }
  return false;
}

export const LOAD = '%load_ext mce_notebook';
