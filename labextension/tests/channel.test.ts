import { render } from '../src/widget';
import { PATIENCE, WidgetTransport, type Model } from '../src/view/channel';
import type { Listener } from '../src/view/transport';

class Fake implements Model {
  state: Record<string, unknown> = { view: { key: 'k', state: 'running' } };
  sent: { id: number; method: string; path: string; body: unknown }[] = [];
  saved = 0;
  handlers: [string, (...parts: never[]) => void][] = [];
  get(name: string) {
    return this.state[name];
  }
  set(name: string, value: unknown) {
    this.state[name] = value;
  }
  save_changes() {
    this.saved++;
  }
  send(message: unknown) {
    this.sent.push(message as (typeof this.sent)[0]);
  }
  on(name: string, callback: (...parts: never[]) => void) {
    this.handlers.push([name, callback]);
  }
  off(name: string, callback: (...parts: never[]) => void) {
    this.handlers = this.handlers.filter(([n, c]) => n !== name || c !== callback);
  }
  fire(name: string, ...parts: unknown[]) {
    for (const [, callback] of this.handlers.filter(([n]) => n === name)) {
      callback(...(parts as never[]));
    }
  }
}

const listener = () => ({
  view: jest.fn(),
  gone: jest.fn(),
  error: jest.fn(),
  connection: jest.fn()
});

test('shows the view of the model, and asks for other axes through it', () => {
  const model = new Fake();
  const transport = new WidgetTransport(model);
  const heard = listener();
  const watch = transport.watch('k', { x: null, y: null, at: {} }, heard as Listener);
  expect(heard.connection).toHaveBeenCalledWith('open');
  expect(heard.view).toHaveBeenCalledWith(model.state.view);
  expect(model.saved).toBe(0);
  watch.choose({ x: 'a', y: null, at: { b: 1 } });
  expect(model.state.request).toEqual({ x: 'a', y: null, at: { b: 1 } });
  expect(model.saved).toBe(1);
  model.state.view = { key: 'k', state: 'done' };
  model.fire('change:view');
  expect(heard.view).toHaveBeenLastCalledWith({ key: 'k', state: 'done' });
  watch.dispose();
  transport.dispose();
  expect(model.handlers).toEqual([]);
});

test('answers find their questions, whatever their order', async () => {
  const model = new Fake();
  const transport = new WidgetTransport(model);
  const one = transport.get('api/sweeps/k/points/1');
  const two = transport.post('api/sweeps/k/actions', { verb: 'cancel' });
  expect(model.sent.map(({ method, path, body }) => [method, path, body])).toEqual([
    ['GET', 'api/sweeps/k/points/1', null],
    ['POST', 'api/sweeps/k/actions', { verb: 'cancel' }]
  ]);
  model.fire('msg:custom', { id: 99, status: 200, body: {} });
  model.fire('msg:custom', {
    id: model.sent[1].id,
    status: 409,
    body: { message: 'It has ended.' }
  });
  model.fire('msg:custom', { id: model.sent[0].id, status: 200, body: { index: 1 } });
  expect(await one).toEqual({ index: 1 });
  await expect(two).rejects.toThrow('It has ended.');
});

test('a kernel that is busy is said to be', async () => {
  jest.useFakeTimers();
  const transport = new WidgetTransport(new Fake());
  const asked = expect(transport.get('api/sweeps/k/points/1')).rejects.toThrow('busy with a cell');
  await jest.advanceTimersByTimeAsync(PATIENCE);
  await asked;
  jest.useRealTimers();
});

test('the kernel hears whether any view is on the page', () => {
  const model = new Fake();
  const element = () => document.body.appendChild(document.createElement('div'));
  const first = render({ model, el: element() });
  const second = render({ model, el: element() });
  expect(model.state.displayed).toBe(true);
  first();
  expect(model.state.displayed).toBe(true);
  const saved = model.saved;
  second();
  expect(model.state.displayed).toBe(false);
  expect(model.saved).toBeGreaterThan(saved);
  render({ model, el: element() })();
  expect(model.state.displayed).toBe(false);
});
