/** The same view as a tab of the main area. */

import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';

import { experimentsIcon } from './icons';
import { ILive } from './live';
import { SweepWidget } from './output';

export const OPEN = 'mce:open-view';

type Tab = MainAreaWidget<SweepWidget> & { sweep: { key: string; name: string } };

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'mce-notebook:tab',
  description: 'Opens sweeps in tabs of their own.',
  autoStart: true,
  requires: [ILive],
  optional: [ILayoutRestorer],
  activate: (app: JupyterFrontEnd, live: ILive, restorer: ILayoutRestorer | null) => {
    const tracker = new WidgetTracker<Tab>({ namespace: 'mce-sweeps' });

    app.commands.addCommand(OPEN, {
      label: args => (args.name ? `Open "${String(args.name)}"` : 'Open Sweep'),
      isVisible: args => typeof args.key === 'string',
      describedBy: {
        args: {
          type: 'object',
          required: ['key', 'name'],
          properties: {
            key: { type: 'string', description: 'Random id of the sweep' },
            name: { type: 'string', description: 'Its name' }
          }
        }
      },
      execute: args => {
        const { key, name } = args;
        if (typeof key !== 'string' || typeof name !== 'string') {
          throw new Error(`${OPEN} needs the key and the name of a sweep.`);
        }
        // A sweep has one tab: asking again brings it forward.
        let tab = tracker.find(({ sweep }) => sweep.key === key);
        if (!tab) {
          const content = new SweepWidget(live.transport, { id: key, name, root: '' }, true);
          tab = Object.assign(new MainAreaWidget({ content }), { sweep: { key, name } });
          tab.id = `mce-sweep-${key}`;
          tab.toolbar.hide();
          tab.title.label = name;
          tab.title.caption = `Sweep ${name}`;
          tab.title.icon = experimentsIcon;
          tab.title.closable = true;
          void tracker.add(tab);
        }
        if (!tab.isAttached) {
          app.shell.add(tab, 'main');
        }
        app.shell.activateById(tab.id);
        return tab;
      }
    });

    if (restorer) {
      void restorer.restore(tracker, {
        command: OPEN,
        args: ({ sweep }) => ({ ...sweep }),
        name: ({ sweep }) => sweep.key
      });
    }
  }
};

export default plugin;
