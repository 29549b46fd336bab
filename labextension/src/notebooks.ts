/** What plugins that do something to notebooks are given. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { INotebookTracker } from '@jupyterlab/notebook';

import { ILive } from './live';

interface Given {
  app: JupyterFrontEnd;
  transport: ILive['transport'];
  tracker: INotebookTracker;
  palette: ICommandPalette | null;
}

export function notebookPlugin(
  id: string,
  description: string,
  activate: (given: Given) => void
): JupyterFrontEndPlugin<void> {
  return {
    id,
    description,
    autoStart: true,
    requires: [ILive, INotebookTracker],
    optional: [ICommandPalette],
    activate: (
      app: JupyterFrontEnd,
      { transport }: ILive,
      tracker: INotebookTracker,
      palette: ICommandPalette | null
    ) => activate({ app, transport, tracker, palette })
  };
}
