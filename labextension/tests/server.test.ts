import { BACKOFF, delay, ServerTransport, type Surroundings } from '../src/view/server';
import type { Connection, Listener } from '../src/view/transport';

class Socket {
  static all: Socket[] = [];
  readyState = 0;
  sent: Record<string, unknown>[] = [];
  onopen: (() => void) | null = null;
  onclose: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;

  constructor() {
    Socket.all.push(this);
  }
  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }
  accept(): void {
    this.readyState = 1;
    this.onopen?.();
  }
  drop(): void {
    this.readyState = 3;
    this.onclose?.();
  }
  close(): void {
    this.drop();
  }
  say(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
}

const CHOICE = { x: null, y: null, at: {} };
let status = 200;
let body = '{}';
const surroundings: Surroundings = {
  open: () => new Socket() as unknown as WebSocket,
  fetch: async () =>
    ({ ok: status < 400, status, statusText: 'Teapot', text: async () => body }) as Response
};

function ear() {
  const states: Connection[] = [];
  const listener = {
    view: jest.fn(),
    gone: jest.fn(),
    error: jest.fn(),
    connection: (state: Connection) => states.push(state)
  };
  return { ...listener, states, listener: listener as unknown as Listener };
}

/** Let promises settle, then time pass. */
async function pass(milliseconds: number): Promise<void> {
  await jest.advanceTimersByTimeAsync(milliseconds);
}

beforeEach(() => {
  jest.useFakeTimers();
  Socket.all = [];
  status = 200;
  body = '{}';
});
afterEach(() => jest.useRealTimers());

test('waiting grows to a bound, and is spread', () => {
  expect(delay(0, 0.5)).toBe(BACKOFF[0]);
  expect(delay(99, 0.5)).toBe(BACKOFF[BACKOFF.length - 1]);
  expect(delay(3, 0)).toBeLessThan(delay(3, 1));
});

test('many views share one socket, and each gets its own messages', () => {
  const transport = new ServerTransport(surroundings);
  const one = ear();
  const two = ear();
  transport.watch('k', { ...CHOICE, x: 'a' }, one.listener);
  transport.watch('k', { ...CHOICE, x: 'b' }, two.listener);
  expect(Socket.all).toHaveLength(1);
  const [socket] = Socket.all;
  socket.accept();
  expect(socket.sent).toEqual([
    { type: 'watch', id: '0', key: 'k', x: 'a', y: null, at: {} },
    { type: 'watch', id: '1', key: 'k', x: 'b', y: null, at: {} }
  ]);
  socket.say({ type: 'view', key: 'k', id: '1', view: { name: 'n' } });
  expect(one.view).not.toHaveBeenCalled();
  expect(two.view).toHaveBeenCalledWith({ name: 'n' });
  socket.say({ type: 'gone', key: 'k', message: 'removed' });
  expect(one.gone).toHaveBeenCalledWith('removed');
  expect(two.gone).toHaveBeenCalledWith('removed');
});

test('a lost connection comes back with everything that is watched', async () => {
  const transport = new ServerTransport(surroundings);
  const { listener, states } = ear();
  const listed = jest.fn();
  const watch = transport.watch('k', CHOICE, listener);
  transport.list(listed);
  Socket.all[0].accept();
  watch.choose({ x: 'late', y: null, at: { z: 3 } });
  Socket.all[0].drop();
  expect(states).toEqual(['connecting', 'open', 'lost']);
  await pass(1000);
  expect(Socket.all).toHaveLength(2);
  Socket.all[1].accept();
  expect(Socket.all[1].sent).toEqual([
    { type: 'watch', id: '0', key: 'k', x: 'late', y: null, at: { z: 3 } },
    { type: 'list' }
  ]);
  expect(states[states.length - 1]).toBe('open');
});

test('a server without the extension is told apart from one that is down', async () => {
  const transport = new ServerTransport(surroundings);
  const { listener, states } = ear();
  status = 404;
  transport.watch('k', CHOICE, listener);
  Socket.all[0].drop();
  await pass(0);
  expect(states[states.length - 1]).toBe('missing');
  // Enabled and restarted in the meantime:
  await pass(60000);
  Socket.all[Socket.all.length - 1].accept();
  expect(states[states.length - 1]).toBe('open');
});

test('attempts slow down, and end with the last view', async () => {
  const transport = new ServerTransport(surroundings);
  const { listener } = ear();
  const watch = transport.watch('k', CHOICE, listener);
  for (let attempt = 0; attempt < 8; attempt++) {
    Socket.all[Socket.all.length - 1].drop();
    await pass(20000);
  }
  const before = Socket.all.length;
  expect(before).toBe(9);
  Socket.all[before - 1].drop();
  await pass(1000);
  expect(Socket.all).toHaveLength(before);
  watch.dispose();
  await pass(60000);
  expect(Socket.all).toHaveLength(before);
});

test('the last one to leave closes the socket; the next opens another', () => {
  const transport = new ServerTransport(surroundings);
  const { listener } = ear();
  const watch = transport.watch('k', CHOICE, listener);
  const stop = transport.list(() => undefined);
  Socket.all[0].accept();
  watch.dispose();
  expect(Socket.all[0].readyState).toBe(1);
  stop();
  stop();
  expect(Socket.all[0].readyState).toBe(3);
  expect(Socket.all[0].sent.map(message => message.type)).toEqual([
    'watch',
    'list',
    'unwatch',
    'unlist'
  ]);
  transport.watch('k', CHOICE, listener);
  expect(Socket.all).toHaveLength(2);
});

test('refusals carry what the server said', async () => {
  const transport = new ServerTransport(surroundings);
  status = 409;
  body = '{"message": "it has ended; run the cell"}';
  await expect(transport.post('api/sweeps/k/actions', { verb: 'cancel' })).rejects.toThrow(
    'it has ended; run the cell'
  );
  body = '<html>Bad gateway</html>';
  await expect(transport.get('api/sweeps')).rejects.toThrow('409 Teapot');
  status = 200;
  await expect(transport.get('api/sweeps')).rejects.toThrow('not JSON');
});

test('nonsense on the socket is reported, not thrown', () => {
  const transport = new ServerTransport(surroundings);
  const { listener, error } = ear();
  transport.watch('k', CHOICE, listener);
  Socket.all[0].accept();
  Socket.all[0].onmessage?.({ data: '{oops' });
  expect(error).toHaveBeenCalledTimes(1);
});
