/** Commands for sweeps: in the palette they mean the sweep of the active cell, from the panel the one given. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import { type INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { addBelowIcon, pauseIcon, refreshIcon, runIcon, stopIcon } from '@jupyterlab/ui-components';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { revealIcon } from './icons';
import { named, openCode, VERBS } from './listing';
import { sweepName } from './line';
import { notebookPlugin } from './notebooks';
import { COMMANDS, SETTINGS } from './settings';
import { told, type Listing } from './view/transport';
import type { Summary, Verb } from './view/types';

const CATEGORY = 'Experiments';
const ICONS = {
  cancel: stopIcon,
  pause: pauseIcon,
  resume: runIcon,
  'rerun-failed': refreshIcon,
  'rerun-stale': refreshIcon
};

/** Where in a notebook the cell of a sweep is; -1 if it is not there. */
export function cellOf(panel: NotebookPanel, name: string): number {
  const cells = panel.content.model?.cells;
  for (let index = 0; index < (cells?.length ?? 0); index++) {
    if (sweepName(cells!.get(index).sharedModel.getSource()) === name) {
      return index;
    }
  }
  return -1;
}

/** Show the cell that made a sweep: in a notebook that is open, or the one it was recorded with. */
export async function reveal(
  app: JupyterFrontEnd,
  tracker: INotebookTracker,
  sweep: Summary
): Promise<void> {
  const current = tracker.currentWidget;
  const panels: NotebookPanel[] = current ? [current] : [];
  tracker.forEach(panel => panels.push(panel));
  // A notebook of that path before others that happen to hold a sweep of that name.
  panels.sort(
    (a, b) => Number(b.context.path === sweep.notebook) - Number(a.context.path === sweep.notebook)
  );
  let panel = panels.find(one => cellOf(one, sweep.name) >= 0);
  if (!panel && sweep.notebook) {
    const opened: unknown = await app.commands.execute('docmanager:open', {
      path: sweep.notebook
    });
    panel = opened instanceof NotebookPanel ? opened : undefined;
    await panel?.context.ready;
    await panel?.revealed;
  }
  const index = panel ? cellOf(panel, sweep.name) : -1;
  if (!panel || index < 0) {
    const where = sweep.notebook ? ` in ${PathExt.basename(sweep.notebook)}` : '';
    throw new Error(`There is no cell %%sweep ${sweep.name}${where}; it was renamed or deleted.`);
  }
  app.shell.activateById(panel.id);
  panel.content.deselectAll();
  panel.content.activeCellIndex = index;
  await panel.content.scrollToCell(panel.content.widgets[index], 'center');
}

/** Write the code that opens a sweep into a new cell of the active notebook. */
export function insertOpen(tracker: INotebookTracker, sweep: Summary, listing: Listing): void {
  const panel = tracker.currentWidget;
  const model = panel?.content.model;
  if (!panel || !model) {
    throw new Error('Open a notebook first: the code goes below its active cell.');
  }
  const source = [...model.cells].map(one => one.sharedModel.getSource()).join('\n');
  const index = model.cells.length === 0 ? 0 : panel.content.activeCellIndex + 1;
  model.sharedModel.insertCell(index, {
    cell_type: 'code',
    source: openCode(sweep, listing, source)
  });
  panel.content.deselectAll();
  panel.content.activeCellIndex = index;
}

export default notebookPlugin(
  SETTINGS,
  'Commands for sweeps.',
  ({ app, transport, tracker, palette }) => {
    let listing: Listing = { sweeps: [], clusters: [] };
    transport.list(found => {
      listing = found;
      app.commands.notifyCommandChanged();
    });

    const meant = (args: ReadonlyPartialJSONObject): Summary | undefined => {
      if (typeof args.key === 'string') {
        return listing.sweeps.find(one => one.key === args.key);
      }
      const name = sweepName(tracker.activeCell?.model.sharedModel.getSource() ?? '');
      const path = tracker.currentWidget?.context.path ?? '';
      return name === null ? undefined : named(listing, name, path);
    };
    const add = (
      id: string,
      label: string,
      icon: typeof stopIcon,
      enabled: (sweep: Summary) => boolean,
      action: (sweep: Summary) => Promise<unknown> | unknown
    ) => {
      app.commands.addCommand(id, {
        label: args => {
          const name = args.isPalette ? meant(args)?.name : undefined;
          return name ? `${label}: ${name}` : label;
        },
        icon,
        isEnabled: args => {
          const sweep = meant(args);
          return sweep !== undefined && enabled(sweep);
        },
        execute: async args => {
          const sweep = meant(args);
          try {
            if (sweep) {
              await action(sweep);
            }
          } catch (error) {
            Notification.error(told(error), { autoClose: 8000 });
          }
        }
      });
      palette?.addItem({ command: id, category: CATEGORY, args: { isPalette: true } });
    };

    for (const verb of Object.keys(VERBS) as Verb[]) {
      const path = (sweep: Summary) => `api/sweeps/${encodeURIComponent(sweep.key)}/actions`;
      add(
        COMMANDS.verb(verb),
        VERBS[verb],
        ICONS[verb],
        sweep => sweep.actions.includes(verb),
        async sweep => {
          const { message } = await transport.post<{ message: string }>(path(sweep), { verb });
          Notification.success(message, { autoClose: 3000 });
        }
      );
    }
    add(COMMANDS.reveal, 'Go to the Cell', revealIcon, Boolean, sweep =>
      reveal(app, tracker, sweep)
    );
    add(
      COMMANDS.insert,
      'Insert Code That Opens It',
      addBelowIcon,
      () => tracker.currentWidget !== null,
      sweep => insertOpen(tracker, sweep, listing)
    );
    tracker.currentChanged.connect(() => app.commands.notifyCommandChanged());
    tracker.activeCellChanged.connect(() => app.commands.notifyCommandChanged());
  }
);
