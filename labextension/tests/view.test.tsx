import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';

import axe from 'axe-core';
import { act } from 'preact/test-utils';

import { lookOf } from '../src/view/memory';
import { mount } from '../src/view/mount';
import type { Props } from '../src/view/SweepView';
import { Refused, type Choice, type Listener, type Transport } from '../src/view/transport';
import type { View } from '../src/view/types';

const EVIL = '<img src=x onerror="window.hacked = true"><script>window.hacked = true</script>';
const CAUSE = `ValueError: ${EVIL}`;

function view(more: Partial<View> = {}): View {
  const cells = Buffer.from(deflateSync(Uint8Array.from([2, 255, 3, 255, 0, 0, 1, 0]))).toString(
    'base64'
  );
  const axis = (name: string, labels: string[]) => ({
    name,
    size: labels.length,
    kind: 'category' as const,
    labels,
    positions: labels.map((_, i) => i),
    log: false
  });
  return {
    key: 'k',
    name: 'recovery',
    root: '/x',
    folder: '/x/recovery',
    state: 'running',
    total: 10000,
    known: 1234,
    counts: {
      pending: 8765,
      running: 1,
      done: 1200,
      failed: 34,
      killed: 0,
      timeout: 0,
      skipped: 0,
      stale: 0
    },
    rate: 45,
    eta: [185, 300],
    workers: 2,
    elapsed: 30,
    cost: null,
    message: '',
    cluster: 'local',
    notebook: '',
    created: '2026-11-23T19:00:00Z',
    actions: ['pause', 'cancel', 'rerun-failed'],
    axes: [axis(EVIL, ['a', EVIL]), axis('b', ['c', 'd']), axis('seed', ['1', '2'])],
    outputs: ['error'],
    causes: [{ cause: CAUSE, count: 34 }],
    regions: [{ cause: CAUSE, count: 30, rule: `all x = ${EVIL}` }],
    heatmap: { x: EVIL, y: 'b', width: 2, height: 2, bin: [1, 1], at: { seed: null }, cells },
    problems: [],
    provenance: { version: 'abc', python: '3.11', seed: 1, declared: '2026-11-23T19:00:00Z' },
    ...more
  };
}

const POINT = {
  index: 7,
  labels: { x: EVIL, seed: '1' },
  status: 'failed',
  cause: CAUSE,
  type: 'ValueError',
  message: EVIL,
  where: 'point',
  replay: 'recovery.replay(seed=1)',
  traceback: `Traceback\n${EVIL}`,
  output: `printed ${EVIL}`,
  seconds: 0.5,
  worker: 'w',
  values: { error: EVIL }
};

class Fake implements Transport {
  listener!: Listener;
  chosen: Choice[] = [];
  asked: string[] = [];
  disposed = 0;
  answer: (path: string, body: unknown) => Promise<unknown> = async () => ({
    message: 'Asked the host to stop.'
  });

  watch(_key: string, choice: Choice, listener: Listener) {
    this.listener = listener;
    this.chosen.push(choice);
    listener.connection('open');
    return { choose: (next: Choice) => this.chosen.push(next), dispose: () => this.disposed++ };
  }
  async get<T>(path: string): Promise<T> {
    this.asked.push(path);
    const found = path.includes('/points/')
      ? POINT
      : path.includes('/cell')
        ? { total: 2, rows: [POINT, { ...POINT, index: 8 }] }
        : { total: 34, rows: [POINT] };
    return found as T;
  }
  async post<T>(path: string, body: unknown): Promise<T> {
    this.asked.push(`${path} ${JSON.stringify(body)}`);
    return (await this.answer(path, body)) as T;
  }
}

let node: HTMLElement;
let transport: Fake;
let unmount: () => void;

async function settle(action: () => void = () => undefined): Promise<void> {
  await act(async () => {
    action();
    await new Promise(done => setTimeout(done, 20));
  });
}

async function show(props: Partial<Props> = {}, first: View | null = view()): Promise<void> {
  await settle(() => {
    unmount = mount(node, { sweep: 'k', name: 'recovery', transport, ...props });
  });
  if (first) {
    await settle(() => transport.listener.view(first));
  }
}

const button = (text: string) =>
  [...node.querySelectorAll('button')].find(each => each.textContent!.trim().startsWith(text))!;
const text = () => node.textContent!;
const press = (key: string, more: KeyboardEventInit = {}) =>
  node
    .querySelector('canvas')!
    .dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, ...more }));

beforeEach(() => {
  document.body.replaceChildren();
  node = document.body.appendChild(document.createElement('main'));
  transport = new Fake();
  Object.assign(lookOf('k'), { choice: undefined, part: undefined });
});
afterEach(() => {
  unmount();
  expect((window as { hacked?: boolean }).hacked).toBeUndefined();
  expect(document.querySelector('script, img[onerror]')).toBeNull();
});

test('says how far it is', async () => {
  await show();
  expect(text()).toContain('1,234 of 10,000 points');
  expect(text()).toContain('3–5 min left');
  expect(text()).toContain('45 points/s');
  expect(text()).toContain('2 workers');
  const bar = node.querySelector('[role=progressbar]')!;
  expect(bar.getAttribute('aria-valuenow')).toBe('1234');
  expect(bar.querySelectorAll('.mce-part')).toHaveLength(3);
  expect(node.querySelector('canvas')!.getAttribute('aria-label')).toContain('34 failed');
});

test('while a slow guard is evaluated nothing is said of points', async () => {
  const counts = { ...view().counts, pending: 0, running: 0, done: 0, failed: 0 };
  const empty = { total: 0, known: 0, counts, causes: [], regions: [] };
  await show({}, view({ ...empty, message: 'the guard g(a) is evaluated: 2 of 9 combinations' }));
  expect(text()).toContain('the guard g(a) is evaluated: 2 of 9 combinations');
  expect(text()).toContain('No point has run yet.');
  expect(text()).not.toContain('its guards leave none');
  await settle(() => transport.listener.view(view({ ...empty, state: 'done' })));
  expect(text()).toContain('The grid has no points: its guards leave none.');
});

test('only what can be done is offered, and it is asked for', async () => {
  await show();
  const labels = [...node.querySelectorAll('.mce-actions button')].map(each => each.textContent);
  expect(labels).toEqual(['Pause', 'Stop', 'Rerun failed']);
  await settle(() => button('Stop').click());
  expect(transport.asked).toContain('api/sweeps/k/actions {"verb":"cancel"}');
  expect(text()).toContain('Asked the host to stop.');
  await settle(() => transport.listener.view(view({ state: 'cancelled', actions: ['resume'] })));
  expect([...node.querySelectorAll('.mce-actions button')].map(each => each.textContent)).toEqual([
    'Resume'
  ]);
  expect(text()).toContain('Stopped');
  expect(text()).not.toContain('Asked the host');
});

test('a refused action says why, in place', async () => {
  await show();
  transport.answer = () => Promise.reject(new Refused(409, 'It has ended; run the cell again.'));
  await settle(() => button('Pause').click());
  const alert = node.querySelector('[role=alert]')!;
  expect(alert.textContent).toBe('Pause: It has ended; run the cell again.');
  expect(button('Pause').disabled).toBe(false);
});

test('from a cause to a traceback and back', async () => {
  await show();
  await settle(() => button('ValueError').click());
  expect(transport.asked[0]).toBe(
    `api/sweeps/k/failures?cause=${encodeURIComponent(CAUSE)}&offset=0&limit=50`
  );
  await settle(() => node.querySelector<HTMLButtonElement>('.mce-row')!.click());
  expect(transport.asked).toContain('api/sweeps/k/points/7');
  expect([...node.querySelectorAll('pre')].map(each => each.textContent)).toEqual([
    POINT.traceback,
    POINT.output
  ]);
  expect(node.querySelector('.mce-replay code')!.textContent).toBe(POINT.replay);
  expect(document.activeElement).toBe(button('‹ Back'));
  await settle(() => button('‹ Back').click());
  expect(button('ValueError').getAttribute('aria-expanded')).toBe('true');
});

test('the replay line is copied, or selected where there is no clipboard', async () => {
  await show();
  await settle(() => button('ValueError').click());
  await settle(() => node.querySelector<HTMLButtonElement>('.mce-row')!.click());
  await settle(() => button('Copy').click());
  expect(text()).toContain('Press Ctrl+C');
  expect(getSelection()!.toString()).toBe(POINT.replay);
  const writeText = jest.fn().mockResolvedValue(undefined);
  Object.defineProperty(navigator, 'clipboard', { value: { writeText }, configurable: true });
  await settle(() => button('Press').click());
  expect(writeText).toHaveBeenCalledWith(POINT.replay);
  expect(text()).toContain('Copied');
});

test('other axes are chosen, and the same one twice changes places', async () => {
  await show();
  const [x, , seed] = node.querySelectorAll('select');
  const choose = (select: HTMLSelectElement, value: string) =>
    settle(() => {
      select.value = value;
      select.dispatchEvent(new Event('change', { bubbles: true }));
    });
  await choose(seed, '1');
  expect(transport.chosen.pop()).toEqual({ x: EVIL, y: 'b', at: { seed: 1 } });
  await choose(x, '1');
  expect(transport.chosen.pop()).toEqual({ x: 'b', y: EVIL, at: { seed: null } });
  await choose(x, '2');
  expect(transport.chosen.pop()).toEqual({ x: 'seed', y: 'b', at: {} });
});

test('an output that is rebuilt shows what was chosen, and as closely', async () => {
  const wide = (x: string, side: number) => {
    const cells = Buffer.from(deflateSync(new Uint8Array(2 * side * side))).toString('base64');
    const map = { x, y: 'b', width: side, height: side, bin: [1, 1] as [number, number] };
    return view({ heatmap: { ...map, at: { seed: null }, cells } });
  };
  await show({}, wide(EVIL, 20));
  const all = () => node.querySelector<HTMLButtonElement>('[title^="Show all"]')!;
  expect(all().disabled).toBe(true);
  await settle(() => press('+'));
  expect(all().disabled).toBe(false);
  const [x] = node.querySelectorAll('select');
  await settle(() => {
    x.value = '2';
    x.dispatchEvent(new Event('change', { bubbles: true }));
  });
  const chosen = transport.chosen.at(-1)!;
  expect(chosen.x).toBe('seed');
  await settle(() => transport.listener.view(wide('seed', 20)));
  await settle(() => press('+'));
  await settle(unmount);
  await show({}, wide('seed', 20));
  expect(transport.chosen.at(-1)).toEqual(chosen);
  expect(all().disabled).toBe(false);
  // Another grid, or another sweep, is another map.
  await settle(unmount);
  await show({}, wide('seed', 30));
  expect(all().disabled).toBe(true);
  await settle(unmount);
  await show({ sweep: 'other' }, wide('seed', 20));
  expect(transport.chosen.at(-1)!.x).toBeNull();
  expect(all().disabled).toBe(true);
});

test('our style changes nothing outside of the view', () => {
  const style = readFileSync(join(__dirname, '..', 'style', 'view.css'), 'utf8');
  const selectors = style
    .replace(/\/\*.*?\*\//gs, '')
    .split(/[{}]/)
    .filter(part => part.includes('.mce-') && !part.includes(':root') && !/:\s/.test(part))
    .flatMap(part => part.split(/,(?![^(]*\))/).map(one => one.trim()));
  expect(selectors.length).toBeGreaterThan(80);
  expect(selectors.filter(one => !/\.mce-(view|fill|SweepWidget)\b/.test(one))).toEqual([]);
});

test('the map answers to keys and is spoken', async () => {
  await show();
  const canvas = node.querySelector('canvas')!;
  await settle(() => canvas.focus());
  await settle(() => press('ArrowLeft'));
  await settle(() => press('ArrowDown'));
  const spoken = [...node.querySelectorAll('[aria-live]')].map(each => each.textContent).join('|');
  expect(spoken).toContain('b c: done');
  expect(node.querySelector('.mce-tip')!.textContent).toContain('done');
  await settle(() => press('ArrowRight'));
  await settle(() => press('Enter'));
  expect(transport.asked[0]).toContain(
    'api/sweeps/k/cell?column=1&row=0&at=%7B%22seed%22%3Anull%7D'
  );
  expect(text()).toContain('2 points here');
  await settle(() => press('Enter', { ctrlKey: true }));
  expect(transport.asked).toHaveLength(1);
});

test('keys in the view are kept from the commands of the notebook', async () => {
  await show();
  expect(
    node.querySelector('[data-lm-suppress-shortcuts]')!.contains(node.querySelector('canvas'))
  ).toBe(true);
});

test('what is saved shows until there is something live, and when there never is', async () => {
  const { state, total, known, counts, eta } = view();
  await show({ last: { state, total, known, counts, eta }, picture: 'AAAA' }, null);
  expect(text()).toContain('1,234 of 10,000 points');
  expect(text()).not.toContain('min left');
  expect(node.querySelector('img')!.getAttribute('src')).toBe('data:image/png;base64,AAAA');
  await settle(() => transport.listener.connection('missing'));
  expect(text()).toContain('jupyter server extension enable mce_notebook');
  expect(text()).toContain('Last seen running');
  expect(node.querySelectorAll('.mce-actions button')).toHaveLength(0);
});

test('a lost connection keeps the picture and takes the buttons', async () => {
  await show();
  await settle(() => transport.listener.connection('lost'));
  expect(text()).toContain('Reconnecting…');
  expect(button('Stop').disabled).toBe(true);
  expect(node.querySelector('canvas')).not.toBeNull();
  await settle(() => transport.listener.connection('open'));
  expect(text()).not.toContain('Reconnecting…');
  expect(button('Stop').disabled).toBe(false);
});

test('a sweep that is gone says so; one that comes back is live again', async () => {
  await show();
  await settle(() => transport.listener.gone('There is no such sweep.'));
  expect(text()).toContain('There is no such sweep.');
  expect(node.querySelectorAll('.mce-actions button')).toHaveLength(0);
  await settle(() => transport.listener.view(view()));
  expect(text()).not.toContain('There is no such sweep.');
});

test('nothing, one axis, no axes, unknown states: all have a view', async () => {
  await show({}, null);
  expect(text()).toContain('Waiting for the first look…');
  const one = view();
  await settle(() =>
    transport.listener.view({ ...one, heatmap: { ...one.heatmap!, y: null, width: 4, height: 1 } })
  );
  expect(node.querySelector('.mce-strip')).not.toBeNull();
  await settle(() =>
    transport.listener.view(view({ heatmap: null, axes: [], total: 1, known: 0 }))
  );
  expect(text()).toContain('0 of 1 point');
  await settle(() => transport.listener.view(view({ state: 'odd' as View['state'] })));
  expect(text()).toContain('1,234 of');
});

test('cells that cannot be read are reported', async () => {
  const broken = view();
  await show({}, { ...broken, heatmap: { ...broken.heatmap!, cells: 'AAAA' } });
  await settle();
  await settle();
  expect(text()).toContain('The heatmap cannot be read');
});

test('speaks when it matters, not at every look', async () => {
  await show();
  const live = [...node.querySelectorAll('.mce-head [aria-live]')].pop()!;
  const before = live.textContent;
  await settle(() => transport.listener.view(view({ known: 1300 })));
  expect(live.textContent).toBe(before);
  await settle(() => transport.listener.view(view({ known: 2600 })));
  expect(live.textContent).toBe('recovery running, 25 % known');
});

test('leaves nothing behind', async () => {
  await show();
  await settle(() => unmount());
  expect(transport.disposed).toBe(1);
  expect(node.childElementCount).toBe(0);
});

test('accessible, in the overview and in a point', async () => {
  await show();
  // Colours need a browser; the rest does not.
  const options = {
    rules: {
      'color-contrast': { enabled: false },
      region: { enabled: false },
      'heading-order': { enabled: false }
    }
  };
  const named = (found: axe.AxeResults) =>
    found.violations.map(each => `${each.id}: ${each.nodes.map(one => one.html)}`);
  expect(named(await axe.run(node, options))).toEqual([]);
  await settle(() => button('ValueError').click());
  expect(named(await axe.run(node, options))).toEqual([]);
  await settle(() => node.querySelector<HTMLButtonElement>('.mce-row')!.click());
  expect(named(await axe.run(node, options))).toEqual([]);
});
