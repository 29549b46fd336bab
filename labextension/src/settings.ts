import type { Verb } from './view/types';

/** The plugin whose schema holds all our settings, the toolbar button and the menu entries. */
export const SETTINGS = 'mce-notebook:plugin';

/** Commands that take a sweep: {key, name}. */
export const COMMANDS = {
  open: 'mce:open-view',
  reveal: 'mce:reveal-cell',
  insert: 'mce:insert-open',
  verb: (verb: Verb) => `mce:${verb}`
};
