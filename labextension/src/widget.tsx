/** The view as an ES module for anywidget: where this extension is not installed. */

import css from '../style/view.css';
import { WidgetTransport, type Model } from './view/channel';
import { mount } from './view/mount';
import type { View } from './view/types';

/** Views of a model on this page: a widget can be shown more than once. */
const shown = new WeakMap<Model, number>();

/** Count them; the kernel reads and sends nothing while there are none. */
function count(model: Model, more: 1 | -1): void {
  const views = (shown.get(model) ?? 0) + more;
  shown.set(model, views);
  model.set('displayed', views > 0);
  model.save_changes();
}

export function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const style = document.createElement('style');
  style.textContent = css;
  const node = document.createElement('div');
  el.append(style, node);
  const view = model.get('view') as Partial<View> | null;
  const transport = new WidgetTransport(model);
  const unmount = mount(node, {
    sweep: view?.key ?? '',
    name: view?.name ?? '',
    transport,
    last: view ?? undefined
  });
  count(model, 1);
  return () => {
    count(model, -1);
    unmount();
    transport.dispose();
    el.replaceChildren();
  };
}

export default { render };
