import { deflateSync } from 'node:zlib';

import * as camera from '../src/view/camera';
import {
  decode,
  mix,
  paint,
  palette,
  parse,
  shrink,
  unpack,
  type Cells,
  type Colour
} from '../src/view/cells';
import { RANK, STATUSES } from '../src/view/statuses';
import { labelOf, roundValues, ticksOf } from '../src/view/ticks';

const GREY: Colour = [200, 200, 200];
const COLOURS: Colour[] = STATUSES.map(({ code }) => (code === 0 ? GREY : [code, 10 * code, 100]));

function cells(width: number, height: number, pairs: [number, number][]): Cells {
  return unpack(Uint8Array.from(pairs.flat()), width, height);
}

describe('cells', () => {
  test('base64 of zlib is what the server sends', async () => {
    const bytes = Uint8Array.from([2, 255, 3, 128, 0, 0, 255, 0]);
    const text = Buffer.from(deflateSync(bytes)).toString('base64');
    const found = await decode(text, 2, 2);
    expect([...found.status]).toEqual([2, 3, 0, 255]);
    expect([...found.share]).toEqual([255, 128, 0, 0]);
  });

  test('a wrong size is an error, not a shifted picture', async () => {
    const text = Buffer.from(deflateSync(new Uint8Array(8))).toString('base64');
    await expect(decode(text, 3, 2)).rejects.toThrow('3 x 2 cells need 12');
    await expect(decode('AAAA', 1, 1)).rejects.toThrow();
  });

  test('shrinking keeps the most telling cell of each block', () => {
    const found = shrink(
      cells(3, 3, [
        [2, 255],
        [2, 255],
        [0, 0],
        [2, 255],
        [3, 10],
        [0, 0],
        [255, 0],
        [255, 0],
        [1, 0]
      ]),
      2,
      2
    );
    expect([found.width, found.height]).toEqual([2, 2]);
    expect([...found.status]).toEqual([3, 0, 255, 1]);
    expect([...found.share]).toEqual([Math.floor((3 * 255 + 10) / 4), 0, 0, 0]);
  });

  test('failures outrank everything, and no point ranks last', () => {
    const order = [...STATUSES].sort((a, b) => RANK[b.code] - RANK[a.code]).map(({ name }) => name);
    expect(order).toEqual([
      'failed',
      'killed',
      'timeout',
      'running',
      'stale',
      'done',
      'skipped',
      'pending'
    ]);
    expect(RANK[255]).toBe(0);
  });

  test('rows are drawn upwards, done fades in, failures never fade, no point is transparent', () => {
    const colours = palette(COLOURS);
    const pixels = paint(
      cells(2, 2, [
        [2, 255],
        [2, 1],
        [3, 1],
        [255, 0]
      ]),
      colours
    );
    const pixel = (x: number, y: number) => [...pixels.slice(4 * (2 * y + x), 4 * (2 * y + x) + 4)];
    expect(pixel(0, 1)).toEqual([...COLOURS[2], 255]);
    const faint = pixel(1, 1);
    expect(faint[0]).toBeGreaterThan(COLOURS[2][0]);
    expect(faint[0]).toBeLessThan(GREY[0]);
    expect(pixel(0, 0)).toEqual([...COLOURS[3], 255]);
    expect(pixel(1, 0)[3]).toBe(0);
  });

  test('colours of a theme, in the forms browsers give them', () => {
    expect(parse(' #0af ')).toEqual([0, 170, 255]);
    expect(parse('#102030')).toEqual([16, 32, 48]);
    expect(parse('rgb(1, 2, 3)')).toEqual([1, 2, 3]);
    expect(parse('rgba(1 2 3 / 50%)')).toEqual([1, 2, 3]);
    expect(parse('url(evil)')).toEqual([128, 128, 128]);
    expect(mix([0, 0, 0], [100, 200, 50], 0.5)).toEqual([50, 100, 25]);
  });

  test('statuses differ in lightness or mark, not in hue alone', () => {
    const bad = STATUSES.filter(({ code }) => code >= 3 && code <= 5);
    expect(new Set(bad.map(({ mark }) => mark)).size).toBe(3);
    expect(bad.every(({ mark }) => mark !== 'none')).toBe(true);
  });
});

describe('camera', () => {
  const all = camera.whole(1000, 500);

  test('what is under the pointer stays under it', () => {
    let look = all;
    for (const factor of [0.5, 0.5, 0.7, 1.4, 0.9]) {
      const before = [look.left + 0.3 * look.across, look.bottom + 0.6 * look.up];
      look = camera.zoom(look, factor, 0.3, 0.6, 1000, 500);
      expect(look.left + 0.3 * look.across).toBeCloseTo(before[0]);
      expect(look.bottom + 0.6 * look.up).toBeCloseTo(before[1]);
    }
  });

  test('never beyond the map, never closer than some cells', () => {
    expect(camera.zoom(all, 5, 0.1, 0.1, 1000, 500)).toEqual(all);
    const close = camera.zoom(all, 1e-9, 0, 1, 1000, 500);
    expect([close.across, close.up]).toEqual([4, 4]);
    expect(camera.pan(close, -9, 9, 1000, 500)).toEqual({ ...close, left: 0, bottom: 496 });
    expect(camera.zoom(camera.whole(2, 1), 0.1, 0.5, 0.5, 2, 1)).toEqual(camera.whole(2, 1));
    expect(camera.zoomed(close, 1000, 500)).toBe(true);
    expect(camera.zoomed(all, 1000, 500)).toBe(false);
  });

  test('cells under places', () => {
    expect(camera.cellAt(all, 0, 0, 1000, 500)).toEqual([0, 0]);
    expect(camera.cellAt(all, 0.9999, 0.9999, 1000, 500)).toEqual([999, 499]);
    expect(camera.cellAt(all, 1.01, 0.5, 1000, 500)).toBeNull();
    expect(camera.cellAt(all, -0.01, 0.5, 1000, 500)).toBeNull();
  });

  test('a cell is brought to the screen by the shortest way', () => {
    const look = camera.clamp({ left: 100, bottom: 100, across: 10, up: 10 }, 1000, 500);
    expect(camera.reveal(look, 105, 105, 1000, 500)).toEqual(look);
    expect(camera.reveal(look, 112, 95, 1000, 500)).toEqual({ ...look, left: 103, bottom: 95 });
  });
});

describe('ticks', () => {
  const axis = (labels: string[], more = {}) => ({
    labels,
    positions: labels.map((_, i) => i),
    size: labels.length,
    kind: 'number' as const,
    log: false,
    ...more
  });

  test('few labels are written as they are, every n-th', () => {
    const few = axis(Array.from({ length: 10 }, (_, i) => String(i / 10)));
    expect(ticksOf(few, 1, 0, 10, 20).map(tick => tick.text)).toHaveLength(10);
    expect(ticksOf(few, 1, 0, 10, 5)).toEqual(
      ['0', '0.2', '0.4', '0.6', '0.8'].map((text, i) => ({ place: 2 * i + 0.5, text }))
    );
    expect(ticksOf(few, 1, 4, 3, 20).map(tick => tick.text)).toEqual(['0.4', '0.5', '0.6']);
  });

  test('many labels give round numbers where they belong', () => {
    const many = {
      labels: ['0', '5', '10'],
      positions: [0, 500, 1000],
      size: 1001,
      kind: 'number' as const,
      log: false
    };
    expect(ticksOf(many, 1, 0, 1001, 6).map(tick => tick.text)).toEqual([
      '0',
      '2',
      '4',
      '6',
      '8',
      '10'
    ]);
    expect(ticksOf(many, 2, 0, 500.5, 6)[1].place).toBeCloseTo((200 + 0.5) / 2);
  });

  test('decades on a logarithmic axis', () => {
    expect(roundValues(0.001, 100, 6, true)).toEqual([0.001, 0.01, 0.1, 1, 10, 100]);
    expect(roundValues(1, 30, 6, true)).toEqual([1, 2, 5, 10, 20]);
    expect(roundValues(2, 8, 4, true)).toEqual([2, 4, 6, 8]);
    expect(roundValues(1e-30, 1e30, 5, true).length).toBeLessThanOrEqual(6);
  });

  test('labels that fall, repeat or are no numbers are never interpolated', () => {
    const falling = axis(Array.from({ length: 30 }, (_, i) => String(30 - i)));
    expect(ticksOf(falling, 1, 0, 30, 6).map(tick => tick.text)).toEqual([
      '30',
      '25',
      '20',
      '15',
      '10',
      '5'
    ]);
    const words = axis(['euler', '<script>'], { kind: 'category' });
    expect(ticksOf(words, 1, 0, 2, 9).map(tick => tick.text)).toEqual(['euler', '<script>']);
    expect(ticksOf(axis([]), 1, 0, 1, 5)).toEqual([]);
  });

  test('names of cells: one label, several, or about', () => {
    const few = axis(['a', 'b', 'c'], { kind: 'category' });
    expect(labelOf(few, 1, 1)).toBe('b');
    expect(labelOf(few, 1, 2)).toBe('c');
    expect(labelOf(few, 0, 2)).toBe('a to b');
    const some = {
      labels: ['0', '100'],
      positions: [0, 1000],
      size: 1001,
      kind: 'number' as const,
      log: false
    };
    expect(labelOf(some, 0, 1)).toBe('0');
    expect(labelOf(some, 500, 1)).toBe('about 50');
    expect(labelOf({ ...some, kind: 'category' }, 5, 1)).toBe('0 … 100');
  });
});
