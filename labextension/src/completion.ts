/** Completion of options, clusters and names of sweeps on the line of a sweep. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import {
  ICompletionProviderManager,
  type CompletionHandler,
  type ICompletionContext,
  type ICompletionProvider
} from '@jupyterlab/completer';

import { complete, magics, type Known } from './line';
import { ILive } from './live';

export class SweepCompletions implements ICompletionProvider {
  readonly identifier = 'mce-notebook:completions';
  /** Above the kernel (550), which knows file names at best on such a line. */
  readonly rank = 700;
  readonly renderer = null;

  constructor(private readonly known: () => Known) {}

  async isApplicable(context: ICompletionContext): Promise<boolean> {
    const source = context.editor?.model.sharedModel.getSource() ?? '';
    return magics(source).length > 0;
  }

  async fetch(
    request: CompletionHandler.IRequest
  ): Promise<CompletionHandler.ICompletionItemsReply> {
    const found = complete(request.text, request.offset, this.known());
    return {
      start: found?.from ?? request.offset,
      end: found?.to ?? request.offset,
      items: (found?.items ?? []).map(({ label, meaning }) => ({
        label,
        insertText: label,
        type: label.startsWith('--') ? 'option' : meaning === 'sweep' ? 'sweep' : 'word',
        documentation: meaning
      }))
    };
  }
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'mce-notebook:completion',
  description: 'Completes options, clusters and sweeps on the line of a sweep.',
  autoStart: true,
  requires: [ICompletionProviderManager, ILive],
  activate: (_app: JupyterFrontEnd, completers: ICompletionProviderManager, live: ILive) => {
    let known: Known = { sweeps: [], profiles: [] };
    live.transport.list(({ sweeps, clusters }) => {
      known = {
        sweeps: [...new Set(sweeps.map(one => one.name))].sort(),
        profiles: [...clusters.map(one => one.name), ...sweeps.map(one => one.cluster)]
      };
    });
    completers.registerProvider(new SweepCompletions(() => known));
  }
};

export default plugin;
