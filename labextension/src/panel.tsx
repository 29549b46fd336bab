/** The panel "Experiments": all sweeps and clusters, from whatever started them. */

import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { Dialog, ICommandPalette, Notification, showDialog } from '@jupyterlab/apputils';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { caretDownIcon, caretRightIcon, launchIcon, stopIcon } from '@jupyterlab/ui-components';
import type { CommandRegistry } from '@lumino/commands';
import { Throttler } from '@lumino/polling';
import type { VNode } from 'preact';

import { experimentsIcon } from './icons';
import { busy } from './listing';
import { ILive } from './live';
import { Panel, type Acts } from './panelView';
import { PreactWidget } from './preactWidget';
import { SETTINGS } from './settings';
import type { ServerTransport } from './view/server';
import { told, type Connection, type Listing } from './view/transport';
import type { Cluster } from './view/types';

export const SHOW = 'mce:show-panel';

/** Stop a cluster; asks first when sweeps run on it. */
async function stopCluster(
  transport: ServerTransport,
  cluster: Cluster,
  listing: Listing
): Promise<void> {
  const running = busy(cluster, listing);
  if (running.length > 0) {
    const which = running.length === 1 ? `The sweep ${running[0]}` : `${running.join(', ')}`;
    const answer = await showDialog({
      title: `Stop the cluster ${cluster.name}?`,
      body: `${which} ${running.length === 1 ? 'runs' : 'run'} on it. What is done is kept; Resume goes on later.`,
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Stop' })]
    });
    if (!answer.button.accept) {
      return;
    }
  }
  try {
    const path = `api/clusters/${encodeURIComponent(cluster.key)}/stop`;
    const { message } = await transport.post<{ message: string }>(path, {});
    Notification.success(message, { autoClose: 3000 });
  } catch (error) {
    Notification.error(told(error), { autoClose: 8000 });
  }
}

export class ExperimentsPanel extends PreactWidget {
  private listing: Listing | null = null;
  private connection: Connection = 'connecting';
  private throttle = new Throttler(() => this.refresh(), 200);
  private readonly ends: (() => void)[] = [];

  constructor(
    private readonly commands: CommandRegistry,
    private readonly transport: ServerTransport
  ) {
    super();
    this.id = 'mce-experiments';
    this.title.icon = experimentsIcon;
    this.title.caption = 'Experiments';
    this.addClass('mce-ExperimentsPanel');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'Experiments');
    this.ends.push(
      transport.list(listing => {
        this.listing = listing;
        void this.throttle.invoke();
      }),
      transport.observe(connection => {
        this.connection = connection;
        this.refresh();
      })
    );
  }

  /** Draw at most that often. */
  set updates(perSecond: number) {
    this.throttle.dispose();
    this.throttle = new Throttler(() => this.refresh(), 1000 / perSecond);
  }

  override dispose(): void {
    this.ends.forEach(end => end());
    this.throttle.dispose();
    super.dispose();
  }

  protected content(): VNode {
    const acts: Acts = {
      commands: this.commands,
      icons: {
        open: launchIcon,
        stop: stopIcon,
        expanded: caretDownIcon,
        collapsed: caretRightIcon
      },
      stopCluster: cluster =>
        void stopCluster(this.transport, cluster, this.listing ?? { sweeps: [], clusters: [] })
    };
    return <Panel listing={this.listing} connection={this.connection} acts={acts} />;
  }

  protected override onActivateRequest(): void {
    this.node.querySelector<HTMLElement>('input[type="search"]')?.focus();
  }
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'mce-notebook:panel',
  description: 'Lists all sweeps and clusters.',
  autoStart: true,
  requires: [ILive],
  optional: [ISettingRegistry, ILayoutRestorer, ICommandPalette],
  activate: async (
    app: JupyterFrontEnd,
    { transport }: ILive,
    settings: ISettingRegistry | null,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null
  ) => {
    const panel = new ExperimentsPanel(app.commands, transport);
    app.commands.addCommand(SHOW, {
      label: 'Show Experiments',
      icon: experimentsIcon,
      execute: () => app.shell.activateById(panel.id)
    });
    palette?.addItem({ command: SHOW, category: 'Experiments' });
    restorer?.add(panel, panel.id);
    const loaded = await settings?.load(SETTINGS).catch(() => undefined);
    const side = loaded?.get('side').composite === 'right' ? 'right' : 'left';
    app.shell.add(panel, side, { rank: 350, type: 'Experiments' });
    const apply = () => {
      panel.updates = Number(loaded?.get('updates').composite ?? 5);
    };
    loaded?.changed.connect(apply);
    apply();
  }
};

export default plugin;
