import { diff, folded, wholeLines } from '../src/diff';

const shown = (before: string, after: string) =>
  diff(before, after).map(row => `${{ same: ' ', added: '+', removed: '-' }[row.kind]}${row.text}`);

describe('diff', () => {
  it('shows an added first line', () => {
    expect(shown('a\nb', '%%sweep x\na\nb')).toEqual(['+%%sweep x', ' a', ' b']);
  });

  it('shows changed lines as removed and added', () => {
    expect(shown('a\nfor r in range(20):\nc', 'a\nfor r in replicates(20):\nc')).toEqual([
      ' a',
      '-for r in range(20):',
      '+for r in replicates(20):',
      ' c'
    ]);
  });

  it('gives both texts back', () => {
    const random = (seed: number) =>
      Array.from({ length: 30 }, (_one, at) => 'abc'[(seed * (at + 3) * 7919) % 3]).join('\n');
    for (let seed = 1; seed < 40; seed++) {
      const [before, after] = [random(seed), random(seed + 1)];
      const rows = diff(before, after);
      const side = (kind: string) =>
        rows.filter(row => row.kind === 'same' || row.kind === kind).map(row => row.text);
      expect(side('removed').join('\n')).toBe(before);
      expect(side('added').join('\n')).toBe(after);
    }
  });

  it('stays quick on long cells', () => {
    const before = Array.from({ length: 3000 }, (_one, at) => `a${at}`).join('\n');
    const after = Array.from({ length: 3000 }, (_one, at) => `b${at}`).join('\n');
    expect(diff(before, after)).toHaveLength(6000);
  });

  it('folds what is the same', () => {
    const text = Array.from({ length: 20 }, (_one, at) => String(at)).join('\n');
    const rows = folded(diff(text, `x\n${text}`));
    expect(rows).toHaveLength(5);
    expect(rows[4]).toBeNull();
  });
});

describe('whole lines of a selection', () => {
  const source = 'one\ntwo\nthree';

  it('takes every line it touches', () => {
    expect(wholeLines(source, 5, 6)).toEqual({ before: 'one\n', chosen: 'two', after: 'three' });
    expect(wholeLines(source, 9, 1)).toEqual({ before: '', chosen: source, after: '' });
  });

  it('leaves out a line it only ends before', () => {
    expect(wholeLines(source, 0, 4)).toEqual({ before: '', chosen: 'one', after: 'two\nthree' });
  });
});
