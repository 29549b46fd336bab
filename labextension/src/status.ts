/** How many sweeps run, at the foot of the window; a click shows the panel. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IStatusBar } from '@jupyterlab/statusbar';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';

import { experimentsIcon } from './icons';
import { active, statusText } from './listing';
import { ILive } from './live';
import { SHOW } from './panel';

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'mce-notebook:status',
  description: 'Says at the foot of the window how many sweeps run.',
  autoStart: true,
  requires: [ILive],
  // Notebook 7 has none.
  optional: [IStatusBar],
  activate: (app: JupyterFrontEnd, { transport }: ILive, bar: IStatusBar | null) => {
    if (!bar) {
      return;
    }
    const item = new Widget();
    item.addClass('mce-Status');
    const button = document.createElement('button');
    button.type = 'button';
    button.onclick = () => void app.commands.execute(SHOW);
    const text = document.createElement('span');
    const icon = experimentsIcon.element({ stylesheet: 'statusBar', tag: 'span' });
    icon.setAttribute('aria-hidden', 'true');
    button.append(icon, text);
    item.node.append(button);
    const changed = new Signal<Widget, void>(item);
    transport.list(listing => {
      const shown = statusText(listing);
      text.textContent = shown;
      const names = listing.sweeps.filter(active).map(one => one.name);
      button.title = `Experiments: ${names.join(', ')}`;
      changed.emit();
    });
    bar.registerStatusItem('mce-notebook:status', {
      item,
      align: 'left',
      rank: 5,
      isActive: () => text.textContent !== '',
      activeStateChanged: changed
    });
  }
};

export default plugin;
