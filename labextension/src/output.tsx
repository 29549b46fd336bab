/** Cell outputs: our MIME type drawn live from the server, without a kernel. */

import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { Panel } from '@lumino/widgets';
import type { VNode } from 'preact';

import { ILive } from './live';
import { PreactWidget } from './preactWidget';
import { SweepView } from './view/SweepView';
import type { Transport } from './view/transport';
import type { SweepOutput } from './view/types';

export const MIME_TYPE = 'application/vnd.mce.sweep+json';

/**
 * What is less is preferred: HTML has 50, and widgets, which outputs carry for other front ends, have -10.
 */
const RANK = -20;

/** One sweep as a widget of JupyterLab's: in an output, in a tab. */
export class SweepWidget extends PreactWidget {
  private picture: string | undefined;

  constructor(
    private readonly transport: Transport,
    private shown: SweepOutput | null = null,
    private readonly fill = false
  ) {
    super();
    this.addClass('mce-SweepWidget');
  }

  display(sweep: SweepOutput, picture?: string): void {
    this.shown = sweep;
    this.picture = picture;
    this.refresh();
  }

  protected content(): VNode {
    const shown = this.shown;
    if (!shown) {
      return <></>;
    }
    return (
      <SweepView
        sweep={shown.id}
        name={shown.name}
        transport={this.transport}
        last={shown.state}
        picture={this.picture}
        fill={this.fill}
      />
    );
  }
}

/** Draws one output; an update of the display is another model for the same renderer. */
export class SweepRenderer extends Panel implements IRenderMime.IRenderer {
  private readonly widget: SweepWidget;

  constructor(transport: Transport) {
    super();
    this.addClass('jp-RenderedMCESweep');
    this.widget = new SweepWidget(transport);
    this.addWidget(this.widget);
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const data = model.data[MIME_TYPE] as unknown as SweepOutput;
    if (typeof data?.id !== 'string' || typeof data.name !== 'string') {
      throw new Error('This output names no sweep.');
    }
    const picture = model.data['image/png'];
    this.widget.display(data, typeof picture === 'string' ? picture : undefined);
  }
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'mce-notebook:output',
  description: 'Draws sweeps in the outputs of cells.',
  autoStart: true,
  requires: [IRenderMimeRegistry, ILive],
  activate: (_app, registry: IRenderMimeRegistry, live: ILive) => {
    registry.addFactory(
      {
        safe: true,
        mimeTypes: [MIME_TYPE],
        defaultRank: RANK,
        createRenderer: () => new SweepRenderer(live.transport)
      },
      RANK
    );
  }
};

export default plugin;
