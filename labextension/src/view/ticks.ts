/** What is written along an axis, and what a place on it is called. */

import type { Axis } from './types';

export interface Tick {
  /** In cells from the start of the axis; a cell's middle is at a half. */
  place: number;
  text: string;
}

type Labelled = Pick<Axis, 'labels' | 'positions' | 'size' | 'kind' | 'log'>;

/** From so many labels on, round numbers between them read better than every n-th label. */
const MANY = 24;

/**
 * Choose what to write on the part of an axis that is on the screen.
 *
 * @param bin Labels per cell of the map.
 * @param start, length The part, in cells.
 * @param most At most so many, or few more.
 */
export function ticksOf(
  axis: Labelled,
  bin: number,
  start: number,
  length: number,
  most: number
): Tick[] {
  const scale = axis.size >= MANY || (axis.log && axis.size > most) ? scaleOf(axis) : null;
  const part = { bin, start, length, most };
  return scale ? round(axis, scale, part) : everyNth(axis, part);
}

/** The part of an axis that is on the screen, in cells of `bin` labels, and how many ticks it has room for. */
interface Part {
  bin: number;
  start: number;
  length: number;
  most: number;
}

/** Labels themselves: every n-th on the screen, counted from the first of the axis. */
function everyNth(axis: Labelled, { bin, start, length, most }: Part): Tick[] {
  const shown: (Tick & { label: number })[] = [];
  axis.positions.forEach((position, label) => {
    const place = Math.floor(position / bin) + 0.5;
    if (place >= start && place <= start + length) {
      shown.push({ place, text: axis.labels[label], label });
    }
  });
  const step = roundUp(Math.max(shown.length / Math.max(most, 1), 1), [1, 2, 4, 5]);
  return shown
    .filter(({ label }) => label % step === 0)
    .map(({ place, text }) => ({ place, text }));
}

interface Scale {
  values: number[];
  /** Whether places between labels follow the logarithm. */
  log: boolean;
}

/** The labels as growing numbers, or null when they are not. */
function scaleOf({ labels, positions, kind, log }: Labelled): Scale | null {
  const values = labels.map(Number);
  if (kind !== 'number' || values.length < 2 || positions.length !== values.length) {
    return null;
  }
  const grows = values.every(
    (value, i) => Number.isFinite(value) && (i === 0 || value > values[i - 1])
  );
  return grows ? { values, log: log && values[0] > 0 } : null;
}

function round(axis: Labelled, scale: Scale, { bin, start, length, most }: Part): Tick[] {
  const low = valueAt(axis, scale, start * bin - 0.5);
  const high = valueAt(axis, scale, (start + length) * bin - 0.5);
  return roundValues(low, high, Math.max(most, 2), scale.log).map(value => ({
    place: (positionOf(axis, scale, value) + 0.5) / bin,
    text: String(Number(value.toPrecision(12)))
  }));
}

/** Round numbers from `low` to `high`: decades and their simple parts on a logarithmic axis that spans some. */
export function roundValues(low: number, high: number, most: number, log: boolean): number[] {
  if (log && high / low >= 10) {
    const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const stride = roundUp((last - first) / most, [1, 2, 5]);
    for (const factors of [[1, 2, 5], [1, 3], [1]]) {
      const found: number[] = [];
      for (let power = first; power <= last; power++) {
        if (stride <= 1 || power % stride === 0) {
          found.push(...(stride <= 1 ? factors : [1]).map(factor => factor * 10 ** power));
        }
      }
      const inside = found.filter(value => value >= low && value <= high);
      if (inside.length <= most || factors.length === 1) {
        return inside;
      }
    }
  }
  const step = roundUp((high - low) / most, [1, 2, 5]);
  const found: number[] = [];
  for (let count = Math.ceil(low / step - 1e-9); count * step <= high + 1e-9 * step; count++) {
    found.push(count * step);
  }
  return found;
}

/** The next of the factors times a power of ten. */
function roundUp(least: number, factors: number[]): number {
  if (!(least > 0) || !Number.isFinite(least)) {
    return 1;
  }
  let power = 10 ** Math.floor(Math.log10(least));
  for (;;) {
    for (const factor of factors) {
      if (factor * power >= least * (1 - 1e-9)) {
        return factor * power;
      }
    }
    power *= 10;
  }
}

/** Position of the last known label at or before a place that `reach` measures. */
function before(known: number[], reach: number): number {
  let low = 0;
  let high = known.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (known[middle] <= reach) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

/** The value at a position between or beyond known labels. */
function valueAt({ positions }: Labelled, { values, log }: Scale, position: number): number {
  const at = Math.min(before(positions, position), values.length - 2);
  const share = (position - positions[at]) / (positions[at + 1] - positions[at]);
  return log
    ? values[at] * (values[at + 1] / values[at]) ** share
    : values[at] + share * (values[at + 1] - values[at]);
}

function positionOf({ positions }: Labelled, { values, log }: Scale, value: number): number {
  const at = Math.min(before(values, value), values.length - 2);
  const share = log
    ? Math.log(value / values[at]) / Math.log(values[at + 1] / values[at])
    : (value - values[at]) / (values[at + 1] - values[at]);
  return positions[at] + share * (positions[at + 1] - positions[at]);
}

/** What a cell of the map is called: "0.25", "0.25 to 0.5" for several labels, "about 0.3" where unsure. */
export function labelOf(axis: Labelled, cell: number, bin: number): string {
  const first = cell * bin;
  const last = Math.min(first + bin, axis.size) - 1;
  const low = labelAt(axis, first);
  return first === last ? low : `${low} to ${labelAt(axis, last)}`;
}

function labelAt(axis: Labelled, position: number): string {
  const { labels, positions } = axis;
  const at = before(positions, position);
  if (positions[at] === position || at + 1 >= positions.length) {
    return labels[at] ?? '';
  }
  const scale = scaleOf(axis);
  return scale
    ? `about ${Number(valueAt(axis, scale, position).toPrecision(4))}`
    : `${labels[at]} … ${labels[at + 1]}`;
}
