import * as format from '../src/view/format';

test.each([
  [0, 1, '0 of 1 point'],
  [1, 1, '1 point'],
  [1234, 10000, '1,234 of 10,000 points'],
  [10000, 10000, '10,000 points']
])('%d of %d points', (known, total, text) => {
  expect(format.points(known, total)).toBe(text);
});

test('a share is never all before it is, and never nothing after it began', () => {
  expect(format.percent(0, 10)).toBe('0 %');
  expect(format.percent(1, 1_000_000)).toBe('0.1 %');
  expect(format.percent(999_999, 1_000_000)).toBe('99.9 %');
  expect(format.percent(999, 1000)).toBe('99.9 %');
  expect(format.percent(10, 10)).toBe('100 %');
});

test.each([
  [0, ''],
  [NaN, ''],
  [45.26, '45.3 points/s'],
  [12345.6, '12,346 points/s'],
  [0.05, '3 points/min'],
  [0.001, '3.6 points/h']
])('rate %d', (rate, text) => expect(format.rate(rate)).toBe(text));

test.each([
  [0, 'under 1 s'],
  [42.4, '42 s'],
  [200, '3 min 20 s'],
  [7500, '2 h 5 min'],
  [36000, '10 h'],
  [3 * 86400 + 4 * 3600, '3 d 4 h']
])('%d seconds', (seconds, text) => expect(format.duration(seconds)).toBe(text));

test.each<[[number, number] | null, string]>([
  [null, ''],
  [[0.1, 0.5], 'under 1 s left'],
  [[5, 9], '5–9 s left'],
  [[185, 300], '3–5 min left'],
  [[300, 185], '3–5 min left'],
  [[100, 110], '100–110 s left'],
  [[7000, 7300], 'about 2 h left'],
  [[10, 600], 'under 10 min left'],
  [[100000, 400000], '1–5 d left'],
  [[Infinity, Infinity], '']
])('left: %p', (eta, text) => expect(format.left(eta)).toBe(text));

test('cost', () => {
  expect(format.cost(null)).toBe('');
  expect(format.cost({ amount: 0.123, currency: 'USD' })).toBe('$0.12 so far');
  expect(format.cost({ amount: 0.001, currency: 'USD' })).toBe('under $0.01 so far');
  expect(format.cost({ amount: 3.4, currency: 'EUR' })).toBe('3.40 EUR so far');
});

test('labels are as short as tells them apart', () => {
  expect(format.ticks(['0.1', '0.333333333333', '0.9'], 'number')).toEqual(['0.1', '0.33', '0.9']);
  expect(format.ticks(['0.1001', '0.1002'], 'number')).toEqual(['0.1001', '0.1002']);
  expect(format.ticks(['0', '50000', '100000'], 'number')).toEqual(['0', '5e4', '1e5']);
  expect(format.ticks(['100', '200'], 'number')).toEqual(['100', '200']);
  expect(format.ticks(['1999', '2026'], 'number')).toEqual(['1999', '2026']);
  expect(format.ticks(['nan', '1'], 'number')).toEqual(['nan', '1']);
  expect(format.ticks(['a name that goes on and on'], 'category')).toEqual(['a name that goe…']);
});

test('a moment that is none stays as it is', () => {
  expect(format.moment('yesterday')).toBe('yesterday');
  expect(format.moment('2026-11-23T19:00:00Z')).toContain('2026');
});
