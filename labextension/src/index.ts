import type { JupyterFrontEndPlugin } from '@jupyterlab/application';

import commands from './commands';
import completion from './completion';
import highlight from './highlight';
import live from './live';
import output from './output';
import panel from './panel';
import status from './status';
import sweepCell from './sweepCell';
import tab from './tab';

// One plugin per module, so that each can be read, tested and disabled by itself.
const plugins: JupyterFrontEndPlugin<unknown>[] = [
  live,
  output,
  tab,
  commands,
  panel,
  status,
  sweepCell,
  highlight,
  completion
];

export default plugins;
