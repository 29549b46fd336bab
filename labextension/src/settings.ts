/** The plugin whose schema holds all our settings, the toolbar button and the menu entries. */
export const SETTINGS = 'mce-notebook:plugin';
