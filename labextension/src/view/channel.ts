/** The transport of a widget: what a server would answer comes from the kernel, as custom messages. */

import { Refused, type Choice, type Listener, type Transport, type Watch } from './transport';
import type { View } from './types';

/** What it needs of a widget's model (anywidget's, or a test's). */
export interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  send(message: unknown): void;
  on(name: string, callback: (...parts: never[]) => void): void;
  off(name: string, callback: (...parts: never[]) => void): void;
}

interface Reply {
  id: number;
  status: number;
  body: unknown;
}

/** Milliseconds after which a kernel that does not answer is said to be busy. */
export const PATIENCE = 20000;
const BUSY =
  'The kernel does not answer; it may be busy with a cell. It will be done when the cell ends.';

export class WidgetTransport implements Transport {
  private readonly waiting = new Map<
    number,
    {
      resolve: (body: unknown) => void;
      reject: (error: Error) => void;
      timer: ReturnType<typeof setTimeout>;
    }
  >();
  private next = 0;

  constructor(private readonly model: Model) {
    model.on('msg:custom', this.receive);
  }

  watch(_key: string, choice: Choice, listener: Listener): Watch {
    const tell = () => {
      const view = this.model.get('view') as View | null;
      if (view && 'state' in view) {
        listener.view(view);
      }
    };
    this.model.on('change:view', tell);
    listener.connection('open');
    tell();
    const choose = (chosen: Choice) => {
      this.model.set('request', chosen);
      this.model.save_changes();
    };
    if (choice.x !== null) {
      choose(choice);
    }
    return { choose, dispose: () => this.model.off('change:view', tell) };
  }

  get<T>(path: string): Promise<T> {
    return this.ask<T>('GET', path, null);
  }

  post<T>(path: string, body: unknown): Promise<T> {
    return this.ask<T>('POST', path, body);
  }

  dispose(): void {
    this.model.off('msg:custom', this.receive);
    for (const { timer } of this.waiting.values()) {
      clearTimeout(timer);
    }
    this.waiting.clear();
  }

  private ask<T>(method: string, path: string, body: unknown): Promise<T> {
    const id = this.next++;
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(id);
        reject(new Refused(504, BUSY));
      }, PATIENCE);
      this.waiting.set(id, { resolve: resolve as (body: unknown) => void, reject, timer });
      this.model.send({ id, method, path, body });
    });
  }

  private readonly receive = (message: Reply): void => {
    const asked = this.waiting.get(message?.id);
    if (!asked) {
      return;
    }
    this.waiting.delete(message.id);
    clearTimeout(asked.timer);
    if (message.status < 400) {
      asked.resolve(message.body);
    } else {
      const told = (message.body as { message?: string } | null)?.message;
      asked.reject(new Refused(message.status, told || `Refused with ${message.status}.`));
    }
  };
}
