import type { LabIcon } from '@jupyterlab/ui-components';
import { CommandRegistry } from '@lumino/commands';
import { render } from 'preact';

import {
  aside,
  busy,
  detail,
  filtered,
  named,
  openCode,
  since,
  sorted,
  statusText
} from '../src/listing';
import { moveFocus, Panel } from '../src/panelView';
import { loads, verdict, ways, type Rewrite } from '../src/rewriting';
import type { Cluster, Summary } from '../src/view/types';

function summary(name: string, more: Partial<Summary> = {}): Summary {
  const none = {
    pending: 0,
    running: 0,
    done: 0,
    failed: 0,
    killed: 0,
    timeout: 0,
    skipped: 0,
    stale: 0
  };
  return {
    key: `key-${name}`,
    name,
    root: '/data/experiments',
    folder: `/data/experiments/${name}`,
    state: 'done',
    total: 100,
    known: 100,
    rate: 0,
    eta: null,
    workers: 0,
    elapsed: 1,
    cost: null,
    message: '',
    cluster: 'local',
    notebook: '',
    created: '2026-11-23T10:00:00',
    actions: [],
    ...more,
    counts: { ...none, ...more.counts }
  };
}

const cluster: Cluster = {
  key: 'c',
  name: 'local',
  kind: 'local',
  state: 'ready',
  workers: 1,
  slots: 2,
  since: '',
  sweeps: ['runs', 'rests'],
  address: '',
  cost_per_hour: null,
  message: ''
};

describe('a list of sweeps', () => {
  const runs = summary('runs', { state: 'running', known: 40, eta: [100, 240] });
  const rests = summary('rests', {
    created: '2026-11-23T12:00:00',
    counts: { ...runs.counts, failed: 3 }
  });
  const old = summary('old', { created: '2025-01-01T00:00:00', notebook: 'a/b.ipynb' });
  const waits = summary('waits', { state: 'queued', known: 0 });

  it('begins with what runs, then the newest', () => {
    expect(sorted([old, rests, waits, runs]).map(one => one.name)).toEqual([
      'runs',
      'waits',
      'rests',
      'old'
    ]);
  });

  it('is filtered by every word typed', () => {
    expect(filtered([old, rests, runs], ' RUN ').map(one => one.name)).toEqual(['runs']);
    expect(filtered([old, rests, runs], 'done b.ipynb').map(one => one.name)).toEqual(['old']);
    expect(filtered([old], '')).toHaveLength(1);
  });

  it('says how far, how long and what failed', () => {
    expect(aside(runs)).toBe('2–4 min left');
    expect(aside(rests)).toBe('done');
    expect(detail(runs)).toBe('40 of 100 points');
    expect(detail(rests)).toBe('100 points · 3 failed');
    // Which points there are is not known yet.
    const message = 'the guard good(n) is evaluated: 40 of 100 combinations';
    const guarded = summary('guarded', { state: 'running', total: 0, known: 0, message });
    expect(detail(guarded)).toBe(message);
    expect(detail({ ...guarded, state: 'stopped' })).toBe('');
    expect(detail(summary('none', { total: 0, known: 0 }))).toBe('0 points');
    expect(statusText({ sweeps: [runs, waits, old], clusters: [] })).toBe('1 running, 1 waiting');
    expect(statusText({ sweeps: [old], clusters: [] })).toBe('');
  });

  it('tells moments of today by the clock, others by the day', () => {
    const now = new Date('2026-11-23T18:00:00');
    expect(since('2026-11-23T08:05:00', now)).toMatch(/^since 0?8:05/);
    expect(since('2026-11-20T08:05:00', now)).toContain('2026');
    expect(since('nonsense', now)).toBe('');
  });

  it('knows which sweeps a cluster would take along', () => {
    expect(busy(cluster, { sweeps: [runs, rests], clusters: [cluster] })).toEqual(['runs']);
  });

  it('prefers the sweep of the notebook', () => {
    const other = summary('old', { key: 'other', created: '2026-01-01T00:00:00' });
    expect(named({ sweeps: [other, old], clusters: [] }, 'old', 'a/b.ipynb')?.key).toBe('key-old');
    expect(named({ sweeps: [old, other], clusters: [] }, 'old', '')?.key).toBe('other');
    expect(named({ sweeps: [], clusters: [] }, 'old', '')).toBeUndefined();
  });

  it('is opened by code that names the store where there are several', () => {
    const one = { sweeps: [old], clusters: [] };
    expect(openCode(old, one, '')).toBe('import mce_notebook as mce\n\nold = mce.open("old")');
    const two = { sweeps: [old, summary('b', { root: '/else' })], clusters: [] };
    expect(openCode(old, two, 'import mce_notebook as mce')).toBe(
      'old = mce.open("old", store="/data/experiments")'
    );
  });
});

describe('the panel', () => {
  const commands = new CommandRegistry();
  const icon = { element: () => document.createElement('span') } as unknown as LabIcon;
  const icons = { open: icon, stop: icon, expanded: icon, collapsed: icon };
  const acts = { commands, icons, stopCluster: jest.fn() };
  const node = document.createElement('div');
  document.body.append(node);
  const draw = (sweeps: Summary[] | null, connection: 'open' | 'lost' | 'missing' = 'open') =>
    render(
      <Panel
        listing={sweeps && { sweeps, clusters: [cluster] }}
        connection={connection}
        acts={acts}
      />,
      node
    );

  it('teaches when there is nothing', () => {
    draw([]);
    expect(node.textContent).toContain('%%sweep');
    expect(node.querySelector('pre')).not.toBeNull();
  });

  it('says when the server is away, and what to do when it does not know us', () => {
    draw([], 'lost');
    expect(node.textContent).toContain('trying again');
    draw(null, 'missing');
    expect(node.textContent).toContain('jupyter server extension enable mce_notebook');
  });

  it('shows names and messages as text', () => {
    const trap = '<img src=x onerror="window.trapped = true">';
    draw([summary('stopped', { state: 'stopped', message: trap, root: trap, folder: trap })]);
    expect(node.querySelector('img')).toBeNull();
    expect(node.textContent).toContain(trap);
  });

  it('opens a sweep, and goes from one to the next by the arrow keys', () => {
    const opened: unknown[] = [];
    commands.addCommand('mce:open-view', { execute: args => opened.push(args.key) });
    draw([summary('a'), summary('b', { created: '2024-01-01' })]);
    const items = node.querySelectorAll<HTMLButtonElement>('button.mce-item-open');
    node.querySelector('input')!.focus();
    const press = (key: string) =>
      document.activeElement!.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
    press('ArrowDown');
    expect(document.activeElement).toBe(items[0]);
    press('ArrowDown');
    expect(document.activeElement).toBe(items[1]);
    press('ArrowDown');
    expect(document.activeElement).toBe(items[1]);
    press('Home');
    expect(document.activeElement).toBe(items[0]);
    items[1].click();
    expect(opened).toEqual(['key-b']);
    moveFocus(node, new KeyboardEvent('keydown', { key: 'x' }));
    expect(document.activeElement).toBe(items[0]);
  });

  it('stops a cluster through its button', () => {
    draw([]);
    node.querySelector<HTMLButtonElement>('button[aria-label="Stop the cluster local"]')!.click();
    expect(acts.stopCluster).toHaveBeenCalledWith(cluster);
  });
});

describe('a rewriting', () => {
  const none: Rewrite = {
    ok: false,
    cell: null,
    diff: '',
    name: 'x',
    axes: [],
    outputs: [],
    setup: [],
    notes: [],
    offers: [],
    error: null,
    tail: null
  };
  const offer = { title: 'Streams of their own', line: 2, cell: '%%sweep x\nb', diff: '' };

  it('is good, mendable, hopeless, or nothing new', () => {
    expect(verdict({ ...none, ok: true, cell: '%%sweep x\na' }, 'a')).toBe('good');
    expect(verdict({ ...none, ok: true, cell: '%%sweep x\na\n' }, '%%sweep x\na')).toBe('same');
    expect(verdict({ ...none, offers: [offer] }, 'a')).toBe('mendable');
    expect(verdict(none, 'a')).toBe('hopeless');
  });

  it('offers every cell once', () => {
    const found = ways({
      ...none,
      ok: true,
      cell: '%%sweep x\nb',
      offers: [offer, { ...offer, cell: 'c' }]
    });
    expect(found.map(one => one.cell)).toEqual(['%%sweep x\nb', 'c']);
  });

  it('needs a cell that loads us', () => {
    expect(loads(['x = 1', '  %load_ext mce_notebook'])).toBe(true);
    expect(loads(['# load_ext mce_notebook', '%load_ext mce_notebook_other'])).toBe(false);
  });
});
