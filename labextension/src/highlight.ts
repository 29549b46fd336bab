/** Colours for the line of a sweep: its name, options and axes. IPython's own highlighting stays underneath. */

import { RangeSetBuilder, type Extension } from '@codemirror/state';
import {
  Decoration,
  ViewPlugin,
  type DecorationSet,
  type EditorView,
  type ViewUpdate
} from '@codemirror/view';
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { EditorExtensionRegistry, IEditorExtensionRegistry } from '@jupyterlab/codemirror';
import { ISettingRegistry } from '@jupyterlab/settingregistry';

import { magics } from './line';
import { SETTINGS } from './settings';

/** A cell longer than this is data rather than code; it is left alone. */
const LONGEST = 200_000;
/** On the body of the page, so that the setting acts on editors that are open already. */
const SWITCH = 'mce-mod-plainLines';

export function decorations(source: string): DecorationSet {
  const builder = new RangeSetBuilder<Decoration>();
  for (const magic of source.length <= LONGEST ? magics(source) : []) {
    for (const word of magic.words.filter(one => one.to > one.from)) {
      builder.add(word.from, word.to, Decoration.mark({ class: `mce-word mce-mod-${word.kind}` }));
    }
  }
  return builder.finish();
}

export function highlighting(): Extension {
  return ViewPlugin.fromClass(
    class {
      decorations: DecorationSet;

      constructor(view: EditorView) {
        this.decorations = decorations(view.state.doc.toString());
      }

      update(update: ViewUpdate): void {
        if (update.docChanged) {
          this.decorations = decorations(update.state.doc.toString());
        }
      }
    },
    { decorations: plugin => plugin.decorations }
  );
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'mce-notebook:highlight',
  description: 'Highlights the line of a sweep.',
  autoStart: true,
  requires: [IEditorExtensionRegistry],
  optional: [ISettingRegistry],
  activate: (
    _app: JupyterFrontEnd,
    editors: IEditorExtensionRegistry,
    settings: ISettingRegistry | null
  ) => {
    editors.addExtension({
      name: 'mce-notebook:highlight',
      // A new cell is of no language until its kernel has answered; markdown is none, and files have no magic lines.
      factory: options =>
        /markdown|gfm/i.test(options.model.mimeType) || !options.inline
          ? null
          : EditorExtensionRegistry.createImmutableExtension(highlighting())
    });
    void settings?.load(SETTINGS).then(loaded => {
      const apply = () => {
        document.body.classList.toggle(SWITCH, loaded.get('highlight').composite === false);
      };
      loaded.changed.connect(apply);
      apply();
    });
  }
};

export default plugin;
