import type { JupyterFrontEndPlugin } from '@jupyterlab/application';

import live from './live';

// One plugin per module, so that each can be read, tested and disabled by itself.
const plugins: JupyterFrontEndPlugin<unknown>[] = [live];

export default plugins;
