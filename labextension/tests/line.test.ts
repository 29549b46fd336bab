import { complete, magics, sweepName } from '../src/line';

const kinds = (source: string) =>
  magics(source).map(magic => magic.words.map(one => `${one.kind}:${one.text}`));

describe('the line of a cell', () => {
  it('is cut into name, options, axes and their values', () => {
    expect(
      kinds('%%sweep mse n=[1, 2] --on local --dry-run --order=random sigma = f(1, "a b")')
    ).toEqual([
      [
        'magic:%%sweep',
        'name:mse',
        'axis:n',
        'value:[1, 2]',
        'option:--on',
        'value:local',
        'option:--dry-run',
        'option:--order',
        'value:random',
        'axis:sigma',
        'value: f(1, "a b")'
      ]
    ]);
  });

  it('marks what is not understood', () => {
    expect(kinds('%%sweep a b --nonsense 3')).toEqual([
      ['magic:%%sweep', 'name:a', 'unknown:b', 'unknown:--nonsense', 'unknown:3']
    ]);
  });

  it('is the first line that is not empty, and no other', () => {
    expect(sweepName('\n\n%%sweep good\nfor n in x:')).toBe('good');
    expect(sweepName('x = 1\n%%sweep late')).toBeNull();
    expect(sweepName('# %%sweep no')).toBeNull();
    expect(sweepName('%%sweeping no')).toBeNull();
    expect(sweepName('%%sweep')).toBeNull();
  });

  it('knows verbs of %sweep, also below other code', () => {
    expect(kinds('x = 1\n  %sweep cancel mse')).toEqual([
      ['magic:%sweep', 'verb:cancel', 'name:mse']
    ]);
    expect(kinds('%%sweep list')).toEqual([['magic:%%sweep', 'name:list']]);
  });

  it('gives places in the text of the whole cell', () => {
    const source = 'é = 1\n%sweep status grün';
    const [magic] = magics(source);
    for (const one of magic.words) {
      expect(source.slice(one.from, one.to)).toBe(one.text);
    }
  });

  it('survives quotes and brackets that never close', () => {
    expect(kinds('%%sweep a n=[1, 2 --on "x')[0].slice(0, 3)).toEqual([
      'magic:%%sweep',
      'name:a',
      'axis:n'
    ]);
    expect(kinds('%%sweep a )))) n=1')[0]).toContain('axis:n');
  });
});

describe('completion', () => {
  const known = { sweeps: ['accuracy', 'recovery'], profiles: ['slurm'] };
  const labels = (text: string) => {
    const offset = text.indexOf('|');
    const source = text.replace('|', '');
    const found = complete(source, offset, known);
    return found
      ? [source.slice(found.from, found.to), ...found.items.map(one => one.label)]
      : null;
  };

  it('offers options that fit what is typed, and none twice', () => {
    expect(labels('%%sweep x --r|')).toEqual(['--r', '--rerun', '--retries', '--replace']);
    expect(labels('%%sweep x --rerun all --r|')).toEqual(['--r', '--retries', '--replace']);
    expect(labels('%%sweep x --|')).toContain('--dry-run');
  });

  it('offers values where there is a list of them', () => {
    expect(labels('%%sweep x --on |')).toEqual(['', 'local', 'inline', 'slurm']);
    expect(labels('%%sweep x --rerun s|')).toEqual(['s', 'stale']);
    expect(labels('%%sweep x --timeout |')).toBeNull();
  });

  it('offers sweeps and verbs', () => {
    expect(labels('%%sweep acc|')).toEqual(['acc', 'accuracy']);
    expect(labels('%sweep canc|')).toEqual(['canc', 'cancel']);
    expect(labels('%sweep cancel r|')).toEqual(['r', 'recovery']);
  });

  it('keeps out of everything else', () => {
    expect(labels('%%sweep x\nfor n in |')).toBeNull();
    expect(labels('%%swe|')).toBeNull();
    expect(labels('x = --r|')).toBeNull();
  });
});
