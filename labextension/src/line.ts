/** The line of a cell, cut into words as `mce_notebook.frontends.line` cuts it; for colours and completion. */

import words from './words.json';

export type Kind = 'magic' | 'name' | 'verb' | 'option' | 'value' | 'axis' | 'unknown';

export interface Word {
  from: number;
  to: number;
  kind: Kind;
  text: string;
}

export interface Magic {
  /** Where the line is in the text of the cell. */
  from: number;
  to: number;
  /** `%%sweep` declares a sweep, `%sweep` speaks to one. */
  cell: boolean;
  words: Word[];
}

export interface Known {
  sweeps: string[];
  profiles: string[];
}

export interface Candidate {
  label: string;
  meaning: string;
}

export interface Completion {
  from: number;
  to: number;
  items: Candidate[];
}

const OPTIONS = new Map(words.options.map(one => [one.name, one]));
const VERBS = new Map(words.verbs.map(one => [one.name, one.meaning]));
const CHOICES: Record<string, string[]> = words.choices;
const AXIS = /^([\p{L}_][\p{L}\p{N}_]*)\s*=(?!=)/u;
const AXIS_HEAD = /^[\p{L}_][\p{L}\p{N}_]*\s*=$/u;
const BRACKETS: Record<string, number> = { '(': 1, '[': 1, '{': 1, ')': -1, ']': -1, '}': -1 };

/** All lines of ours in a cell: the first one if it is `%%sweep`, and every `%sweep`. */
export function magics(source: string): Magic[] {
  const found: Magic[] = [];
  let from = 0;
  let first = true;
  for (const line of source.split('\n')) {
    const start = /^\s*(%%?)sweep(?=\s|$)/.exec(line);
    if (start && (first || start[1] === '%')) {
      found.push(parsed(line, from, start[0].length, start[1] === '%%'));
    }
    // IPython takes a cell magic only from the first line that is not empty.
    first &&= line.trim() === '';
    from += line.length + 1;
  }
  return found;
}

/** The name of the sweep that a cell declares, or null. */
export function sweepName(source: string): string | null {
  const magic = magics(source).find(one => one.cell);
  return magic?.words.find(one => one.kind === 'name')?.text ?? null;
}

function parsed(line: string, offset: number, head: number, cell: boolean): Magic {
  const list: Word[] = [];
  const add = (from: number, to: number, kind: Kind) => {
    list.push({ from: offset + from, to: offset + to, kind, text: line.slice(from, to) });
  };
  add(line.length - line.trimStart().length, head, 'magic');
  let awaited = false;
  for (const [from, to] of tokens(line, head)) {
    const text = line.slice(from, to);
    if (awaited) {
      add(from, to, 'value');
      awaited = false;
    } else if (text.startsWith('--')) {
      const end = text.includes('=') ? from + text.indexOf('=') : to;
      const option = OPTIONS.get(optionName(line.slice(from, end)));
      add(from, end, option ? 'option' : 'unknown');
      if (end < to) {
        add(end + 1, to, 'value');
      } else {
        awaited = Boolean(option?.value);
      }
    } else if (AXIS.test(text)) {
      add(from, from + AXIS.exec(text)![1].length, 'axis');
      add(from + text.indexOf('=') + 1, to, 'value');
    } else {
      add(from, to, plainKind(text, cell, list));
    }
  }
  return { from: offset, to: offset + line.length, cell, words: list };
}

function optionName(text: string): string {
  return text.slice(2).replaceAll('_', '-');
}

function plainKind(text: string, cell: boolean, before: Word[]): Kind {
  const named = before.some(one => one.kind === 'name');
  const spoken = before.some(one => one.kind === 'verb');
  if (!cell && !named && !spoken && VERBS.has(text)) {
    return 'verb';
  }
  return named ? 'unknown' : 'name';
}

/** Places of the words between blanks, but not inside brackets or quotes; `n = [1]` is one word. */
function tokens(line: string, start: number): [number, number][] {
  const found: [number, number][] = [];
  let from = -1;
  let quote = '';
  let depth = 0;
  for (let place = start; place < line.length; place++) {
    const character = line[place];
    if (!quote && depth === 0 && /\s/.test(character)) {
      if (from >= 0) {
        join(line, found, from, place);
      }
      from = -1;
      continue;
    }
    from = from < 0 ? place : from;
    if (quote) {
      quote = character === quote ? '' : quote;
    } else if (character === '"' || character === "'") {
      quote = character;
    } else {
      depth = Math.max(0, depth + (BRACKETS[character] ?? 0));
    }
  }
  if (from >= 0) {
    join(line, found, from, line.length);
  }
  return found;
}

function join(line: string, found: [number, number][], from: number, to: number): void {
  const last = found[found.length - 1];
  const before = last ? line.slice(last[0], last[1]) : '';
  if (last && !before.startsWith('-') && (line[from] === '=' || AXIS_HEAD.test(before))) {
    last[1] = to;
  } else {
    found.push([from, to]);
  }
}

/**
 * What may stand at a place of a cell.
 *
 * @param source text of the cell
 * @param offset place of the cursor
 * @param known names of sweeps and of cluster profiles
 * @returns null where the place is in no line of ours, or nothing fits
 */
export function complete(source: string, offset: number, known: Known): Completion | null {
  const magic = magics(source).find(one => one.words[0].to < offset && offset <= one.to);
  if (!magic) {
    return null;
  }
  const current = magic.words.find(one => one.from <= offset && offset <= one.to);
  const from = current?.from ?? offset;
  const typed = source.slice(from, offset);
  const before = magic.words.filter(one => one.kind !== 'magic' && one.to < Math.max(from, 1));
  const items = candidates(magic, before, typed, known).filter(
    one => one.label.startsWith(typed) && one.label !== typed
  );
  return items.length ? { from, to: offset, items } : null;
}

function candidates(magic: Magic, before: Word[], typed: string, known: Known): Candidate[] {
  const last = before[before.length - 1];
  const option = last?.kind === 'option' ? OPTIONS.get(optionName(last.text)) : undefined;
  if (option?.value) {
    return values(option.name, known);
  }
  const found: Candidate[] = [];
  if (!before.some(one => one.kind === 'name')) {
    found.push(...known.sweeps.map(label => ({ label, meaning: 'sweep' })));
    if (!magic.cell && !before.some(one => one.kind === 'verb')) {
      VERBS.forEach((meaning, label) => found.push({ label, meaning }));
    }
  }
  if (magic.cell || typed.startsWith('-')) {
    const given = new Set(before.map(one => one.text));
    for (const { name, meaning } of OPTIONS.values()) {
      const label = `--${name}`;
      if ((magic.cell || name === 'store') && (!given.has(label) || name === 'dims')) {
        found.push({ label, meaning });
      }
    }
  }
  return found;
}

function values(option: string, known: Known): Candidate[] {
  if (option === 'on') {
    const profiles = [...new Set(['local', 'inline', ...known.profiles])];
    return profiles.map(label => ({ label, meaning: 'cluster' }));
  }
  return (CHOICES[option] ?? []).map(label => ({ label, meaning: option }));
}
