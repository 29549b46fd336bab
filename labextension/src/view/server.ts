/** The transport of our server extension: REST, and one websocket that all views of a page share. */

import type { Choice, Connection, Listener, Listing, Transport, Watch } from './transport';
import { Refused, told } from './transport';
import type { View } from './types';

/** What the connection needs of its surroundings; JupyterLab's settings, or a test. */
export interface Surroundings {
  /** Opens the websocket `api/live`. */
  open(): WebSocket;
  /** Asks for a path below the server extension. */
  fetch(path: string, init: RequestInit): Promise<Response>;
}

/** Waiting times between attempts, in milliseconds: prompt at first, gentle on a server that is down. */
export const BACKOFF = [250, 500, 1000, 2000, 4000, 8000, 15000];

export function delay(attempt: number, random: number = Math.random()): number {
  const longest = BACKOFF[Math.min(attempt, BACKOFF.length - 1)];
  // Pages that lost the same server must not all come back in the same moment.
  return longest * (0.75 + 0.5 * random);
}

interface Watched {
  key: string;
  choice: Choice;
  listener: Listener;
}

type Message =
  | { type: 'view'; key: string; id?: string; view: View }
  | ({ type: 'list' } & Listing)
  | { type: 'gone'; key: string; id?: string; message: string }
  | { type: 'error'; key?: string; id?: string; message: string };

export class ServerTransport implements Transport {
  private readonly watches = new Map<string, Watched>();
  private readonly lists = new Set<(listing: Listing) => void>();
  private readonly observers = new Set<(state: Connection) => void>();
  private listing: Listing | null = null;
  private socket: WebSocket | null = null;
  private state: Connection = 'connecting';
  private attempt = 0;
  private next = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private disposed = false;

  constructor(private readonly surroundings: Surroundings) {}

  watch(key: string, choice: Choice, listener: Listener): Watch {
    const id = String(this.next++);
    const watched: Watched = { key, choice, listener };
    this.watches.set(id, watched);
    listener.connection(this.state);
    this.demand({ type: 'watch', id, key, ...choice });
    return {
      choose: chosen => {
        watched.choice = chosen;
        this.send({ type: 'watch', id, key, ...chosen });
      },
      dispose: () => {
        if (this.watches.delete(id)) {
          this.send({ type: 'unwatch', id, key });
          this.rest();
        }
      }
    };
  }

  /** Follow the list of all sweeps and clusters. */
  list(callback: (listing: Listing) => void): () => void {
    this.lists.add(callback);
    if (this.lists.size === 1) {
      this.demand({ type: 'list' });
    } else if (this.listing) {
      callback(this.listing);
    }
    return () => {
      if (this.lists.delete(callback) && this.lists.size === 0) {
        this.listing = null;
        this.send({ type: 'unlist' });
        this.rest();
      }
    };
  }

  /** Hear whether the server answers; called at once with what is known. */
  observe(callback: (state: Connection) => void): () => void {
    this.observers.add(callback);
    callback(this.state);
    return () => this.observers.delete(callback);
  }

  get<T>(path: string): Promise<T> {
    return this.ask<T>(path, { method: 'GET' });
  }

  post<T>(path: string, body: unknown): Promise<T> {
    return this.ask<T>(path, { method: 'POST', body: JSON.stringify(body) });
  }

  dispose(): void {
    this.disposed = true;
    this.watches.clear();
    this.lists.clear();
    this.observers.clear();
    this.close();
  }

  private async ask<T>(path: string, init: RequestInit): Promise<T> {
    const response = await this.surroundings.fetch(path, init);
    const text = await response.text();
    let body: { message?: string } = {};
    try {
      body = JSON.parse(text);
    } catch {
      // A proxy's page about an error is no JSON; its status says enough.
      if (response.ok) {
        throw new Refused(response.status, 'The server answered with something that is not JSON.');
      }
    }
    if (!response.ok) {
      throw new Refused(
        response.status,
        body.message || `${response.status} ${response.statusText}`
      );
    }
    return body as T;
  }

  private get wanted(): boolean {
    return !this.disposed && (this.watches.size > 0 || this.lists.size > 0);
  }

  /** Say it now if we are connected; otherwise connect, which says all that is wanted. */
  private demand(message: object): void {
    if (this.socket?.readyState === 1) {
      this.send(message);
    } else if (!this.socket && this.timer === undefined) {
      this.connect();
    }
  }

  private send(message: object): void {
    if (this.socket?.readyState === 1) {
      this.socket.send(JSON.stringify(message));
    }
  }

  private connect(): void {
    this.timer = undefined;
    if (!this.wanted) {
      return;
    }
    let socket: WebSocket;
    try {
      socket = this.surroundings.open();
    } catch {
      // A malformed address will not mend itself, but a network that is down looks the same from here.
      this.retry();
      return;
    }
    this.socket = socket;
    socket.onopen = () => {
      this.attempt = 0;
      this.become('open');
      for (const [id, { key, choice }] of this.watches) {
        this.send({ type: 'watch', id, key, ...choice });
      }
      if (this.lists.size > 0) {
        this.send({ type: 'list' });
      }
    };
    socket.onmessage = event => this.receive(String(event.data));
    socket.onclose = () => {
      if (this.socket === socket) {
        this.socket = null;
        this.retry();
      }
    };
  }

  private retry(): void {
    if (!this.wanted) {
      return;
    }
    // A socket that never opened may mean that the server has no such address: asking tells the difference.
    if (this.state !== 'lost' || this.attempt % 3 === 0) {
      void this.examine();
    }
    if (this.state === 'open') {
      this.become('lost');
    }
    this.timer = setTimeout(() => this.connect(), delay(this.attempt++));
  }

  private async examine(): Promise<void> {
    try {
      await this.get('api/sweeps');
      if (this.socket?.readyState !== 1) {
        this.become('lost');
      }
    } catch (error) {
      this.become(error instanceof Refused && error.status === 404 ? 'missing' : 'lost');
    }
  }

  private become(state: Connection): void {
    if (state !== this.state) {
      this.state = state;
      for (const { listener } of this.watches.values()) {
        listener.connection(state);
      }
      this.observers.forEach(callback => callback(state));
    }
  }

  private receive(text: string): void {
    let message: Message;
    try {
      message = JSON.parse(text);
    } catch (error) {
      this.addressed({}).forEach(listener => listener.error(told(error)));
      return;
    }
    switch (message.type) {
      case 'view':
        for (const listener of this.addressed(message)) {
          listener.view(message.view);
        }
        break;
      case 'gone':
        for (const listener of this.addressed(message)) {
          listener.gone(message.message);
        }
        break;
      case 'list':
        this.listing = { sweeps: message.sweeps, clusters: message.clusters };
        for (const callback of [...this.lists]) {
          callback(this.listing);
        }
        break;
      case 'error':
        for (const listener of this.addressed(message)) {
          listener.error(message.message);
        }
    }
  }

  /** Whom a message is for: one watch, all of a sweep, or everybody. */
  private addressed({ key, id }: { key?: string; id?: string }): Listener[] {
    if (id !== undefined) {
      const watched = this.watches.get(id);
      return watched ? [watched.listener] : [];
    }
    return [...this.watches.values()]
      .filter(watched => key === undefined || watched.key === key)
      .map(watched => watched.listener);
  }

  /** Nobody watches: a server need not keep a socket for that. */
  private rest(): void {
    if (!this.wanted) {
      this.close();
    }
  }

  private close(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.attempt = 0;
    const socket = this.socket;
    this.socket = null;
    this.state = 'connecting';
    socket?.close();
  }
}
