/** Numbers for people. */

import type { Summary } from './types';

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

/** 1,234 */
export function integer(value: number): string {
  return whole.format(value);
}

/** "1,234 of 10,000 points", or "10,000 points" when all are known. */
export function points(known: number, total: number): string {
  const noun = total === 1 ? 'point' : 'points';
  return known === total
    ? `${integer(total)} ${noun}`
    : `${integer(known)} of ${integer(total)} ${noun}`;
}

/** Never "100 %" before it is, never "0 %" once something is known. */
export function percent(known: number, total: number): string {
  if (known >= total) {
    return '100 %';
  }
  const digits = total < 1000 ? 0 : 1;
  const step = digits ? 0.1 : 1;
  const share = (100 * known) / total;
  const shown = known > 0 ? Math.min(Math.max(share, step), 100 - step) : 0;
  return `${shown.toFixed(digits)} %`;
}

/** Three digits; as many as there are above a hundred. */
export function short(value: number): string {
  if (!Number.isFinite(value)) {
    return '–';
  }
  return Math.abs(value) >= 100 ? whole.format(value) : String(Number(value.toPrecision(3)));
}

/** "45 points/s", "12 points/min" when they are slow. */
export function rate(perSecond: number): string {
  if (!(perSecond > 0)) {
    return '';
  }
  if (perSecond >= 0.1) {
    return `${short(perSecond)} points/s`;
  }
  return perSecond * 60 >= 0.1
    ? `${short(perSecond * 60)} points/min`
    : `${short(perSecond * 3600)} points/h`;
}

const UNITS: [number, string][] = [
  [86400, 'd'],
  [3600, 'h'],
  [60, 'min'],
  [1, 's']
];

/** "42 s", "3 min 20 s", "2 h 5 min", "3 d 4 h". */
export function duration(seconds: number): string {
  const value = Math.round(seconds);
  if (!(value >= 1)) {
    return 'under 1 s';
  }
  for (let unit = 0; unit < UNITS.length - 1; unit++) {
    const [large, name] = UNITS[unit];
    const [small, other] = UNITS[unit + 1];
    if (value >= large) {
      const count = Math.floor(value / large);
      const rest = Math.floor((value % large) / small);
      return rest && count < 10 ? `${count} ${name} ${rest} ${other}` : `${count} ${name}`;
    }
  }
  return `${value} s`;
}

/**
 * How long it still takes, no more precise than it is known: "3-5 min left", "about 2 h left".
 *
 * Both ends in the unit of the longer one; a range that rounds to one number is "about".
 */
export function left(eta: [number, number] | null): string {
  if (!eta || !eta.every(Number.isFinite)) {
    return '';
  }
  const [best, worst] = eta[0] <= eta[1] ? eta : [eta[1], eta[0]];
  if (worst < 1) {
    return 'under 1 s left';
  }
  // Below two of a unit the next smaller one says more: 90 s rather than 2 min.
  const [size, name] = UNITS.find(([large]) => worst >= 2 * large) ?? UNITS[UNITS.length - 1];
  const low = Math.max(best > 0 ? Math.round(best / size) : 0, 0);
  const high = Math.max(Math.round(worst / size), 1);
  if (low === high) {
    return `about ${high} ${name} left`;
  }
  return low === 0 ? `under ${high} ${name} left` : `${low}–${high} ${name} left`;
}

/** "$0.12 so far", "3.40 EUR so far". */
export function cost(value: Summary['cost']): string {
  if (!value) {
    return '';
  }
  const little = value.amount > 0 && value.amount < 0.01;
  const amount = little ? '0.01' : value.amount.toFixed(2);
  const written = value.currency === 'USD' ? `$${amount}` : `${amount} ${value.currency}`;
  return `${little ? 'under ' : ''}${written} so far`;
}

/** A moment in the reader's own time zone; the text itself when it is no date. */
export function moment(iso: string): string {
  const date = new Date(iso);
  return Number.isNaN(date.getTime())
    ? iso
    : date.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
}

/**
 * Labels of ticks, as short as still tells them apart.
 *
 * Numbers arrive with up to twelve digits; 0.333333333333 is read as 0.33 when its neighbours are far.
 */
export function ticks(labels: string[], kind: string): string[] {
  if (kind !== 'number') {
    return labels.map(label => clip(label, 16));
  }
  const values = labels.map(Number);
  if (values.some(value => !Number.isFinite(value))) {
    return labels.map(label => clip(label, 16));
  }
  const distinct = new Set(values).size;
  // One very large or small number writes all of them as powers, so that they can be compared.
  const powers = values.some(
    value => Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3)
  );
  for (let digits = 2; digits < 12; digits++) {
    const shown = values.map(value => compact(value, digits, powers));
    if (
      new Set(shown).size === distinct &&
      shown.every((text, i) => near(Number(text), values[i], values))
    ) {
      return shown;
    }
  }
  return labels;
}

/** Whether a rounded label is off by little against the distance of its neighbours. */
function near(shown: number, value: number, all: number[]): boolean {
  const gaps = all.filter(other => other !== value).map(other => Math.abs(other - value));
  const gap = gaps.length ? Math.min(...gaps) : Math.abs(value);
  return Math.abs(shown - value) <= 0.05 * gap;
}

function compact(value: number, digits: number, powers: boolean): string {
  const size = Math.abs(value);
  if (powers && value !== 0 && (size >= 1000 || size < 0.1)) {
    return String(Number(value.toPrecision(digits)).toExponential()).replace('e+', 'e');
  }
  const wholeDigits = size >= 1 ? Math.ceil(Math.log10(size + 1)) : 0;
  return String(Number(value.toPrecision(Math.max(digits, wholeDigits))));
}

/** Cut a text that is longer, visibly. */
export function clip(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
