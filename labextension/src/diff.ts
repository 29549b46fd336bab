/** Differences of two texts by lines, for showing what a rewriting changed. */

export interface Row {
  kind: 'same' | 'added' | 'removed';
  /** Line numbers from 1; null on the side that has no such line. */
  before: number | null;
  after: number | null;
  text: string;
}

/** Above this many comparisons the middle is shown as replaced as a whole. */
const LARGEST = 4_000_000;

/**
 * The lines of both texts, in order.
 *
 * The longest common subsequence, between what both texts begin and end with; cells are short.
 */
export function diff(before: string, after: string): Row[] {
  const a = before.split('\n');
  const b = after.split('\n');
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) {
    head++;
  }
  let end = 0;
  while (end < a.length - head && end < b.length - head && a.at(-1 - end) === b.at(-1 - end)) {
    end++;
  }
  const rows: Row[] = [];
  const push = (i: number | null, j: number | null) => {
    const kind = i === null ? 'added' : j === null ? 'removed' : 'same';
    rows.push({
      kind,
      before: i === null ? null : i + 1,
      after: j === null ? null : j + 1,
      text: i === null ? b[j!] : a[i]
    });
  };
  for (let i = 0; i < head; i++) {
    push(i, i);
  }
  middle(a.slice(head, a.length - end), b.slice(head, b.length - end), (i, j) =>
    push(i === null ? null : head + i, j === null ? null : head + j)
  );
  for (let i = end; i > 0; i--) {
    push(a.length - i, b.length - i);
  }
  return rows;
}

function middle(
  a: string[],
  b: string[],
  push: (i: number | null, j: number | null) => void
): void {
  const width = b.length + 1;
  const common = new Uint32Array(a.length * b.length <= LARGEST ? (a.length + 1) * width : 0);
  for (let i = a.length - 1; common.length && i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      common[i * width + j] =
        a[i] === b[j]
          ? common[(i + 1) * width + j + 1] + 1
          : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
    }
  }
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (common.length && i < a.length && j < b.length && a[i] === b[j]) {
      push(i++, j++);
    } else if (
      i < a.length &&
      (j === b.length || !common.length || common[(i + 1) * width + j] >= common[i * width + j + 1])
    ) {
      push(i++, null);
    } else {
      push(null, j++);
    }
  }
}

/** The rows without long stretches that are the same; a null stands for what was left out. */
export function folded(rows: Row[], around = 3): (Row | null)[] {
  const near = rows.map((_row, at) =>
    rows.slice(Math.max(0, at - around), at + around + 1).some(one => one.kind !== 'same')
  );
  const shown: (Row | null)[] = [];
  rows.forEach((row, at) => {
    // One line left out saves nothing.
    if (near[at] || (near[at - 1] && near[at + 1])) {
      shown.push(row);
    } else if (shown.length === 0 || shown[shown.length - 1] !== null) {
      shown.push(null);
    }
  });
  return shown;
}

export interface Split {
  before: string;
  chosen: string;
  after: string;
}

/** The whole lines that a selection touches, and what stands before and after them. */
export function wholeLines(source: string, from: number, to: number): Split {
  const begin = source.lastIndexOf('\n', Math.min(from, to) - 1) + 1;
  let last = Math.max(from, to);
  // A selection that ends at the start of a line does not mean that line.
  if (last > begin && source[last - 1] === '\n') {
    last--;
  }
  const found = source.indexOf('\n', last);
  const end = found < 0 ? source.length : found;
  return {
    before: source.slice(0, begin),
    chosen: source.slice(begin, end),
    after: source.slice(end + 1)
  };
}
