/** The view as an ES module for anywidget: where this extension is not installed. */

import css from '../style/view.css';
import { WidgetTransport, type Model } from './view/channel';
import { mount } from './view/mount';
import type { View } from './view/types';

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
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
  return () => {
    unmount();
    transport.dispose();
    el.replaceChildren();
  };
}

export default { render };
