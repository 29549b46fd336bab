/** One connection to the server extension for the whole page. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import { Token } from '@lumino/coreutils';

import { ServerTransport } from './view/server';

export interface ILive {
  readonly transport: ServerTransport;
}

export const ILive = new Token<ILive>(
  'mce-notebook:ILive',
  'The connection to the server extension that all views of sweeps share.'
);

/** Connect to the server extension with JupyterLab's own settings, its prefix and token included. */
export function connect(settings: ServerConnection.ISettings): ServerTransport {
  return new ServerTransport({
    open: () => {
      const url = URLExt.join(settings.wsUrl, 'mce_notebook', 'api', 'live');
      const token =
        settings.appendToken && settings.token
          ? `?token=${encodeURIComponent(settings.token)}`
          : '';
      return new settings.WebSocket(url + token);
    },
    fetch: (path, init) =>
      ServerConnection.makeRequest(
        `${URLExt.join(settings.baseUrl, 'mce_notebook')}/${path}`,
        init,
        settings
      )
  });
}

const plugin: JupyterFrontEndPlugin<ILive> = {
  id: 'mce-notebook:live',
  description: 'Connects to the server extension.',
  autoStart: true,
  provides: ILive,
  activate: (app: JupyterFrontEnd) => ({
    transport: connect(app.serviceManager.serverSettings)
  })
};

export default plugin;
