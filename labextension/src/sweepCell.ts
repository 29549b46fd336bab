/** "Sweep this cell": the button, the menu entry, and what Apply does to the notebook. */

import { Dialog, Notification } from '@jupyterlab/apputils';
import type { NotebookPanel } from '@jupyterlab/notebook';

import { wholeLines, type Split } from './diff';
import { sweepIcon } from './icons';
import { notebookPlugin } from './notebooks';
import { loads, LOAD, verdict, type Rewrite } from './rewriting';
import { SweepDialogBody, type Decision } from './sweepDialog';
import type { ServerTransport } from './view/server';
import { told } from './view/transport';

export const SWEEP_CELL = 'mce:sweep-cell';

/** What is meant: the selected lines of the active cell, or all of it. */
function meant(panel: NotebookPanel): Split {
  const cell = panel.content.activeCell!;
  const source = cell.model.sharedModel.getSource();
  const whole = { before: '', chosen: source, after: '' };
  const editor = cell.editor;
  if (!editor) {
    return whole;
  }
  const { start, end } = editor.getSelection();
  const [from, to] = [editor.getOffsetAt(start), editor.getOffsetAt(end)];
  const split = wholeLines(source, from, to);
  // Selected without a loop is rather a word that was looked up than a wish.
  return from !== to && /^\s*(async\s+)?for\s/m.test(split.chosen) ? split : whole;
}

/** Put the cell in place, with what stood around it in cells of their own; each can be undone. */
export function apply(panel: NotebookPanel, index: number, split: Split, chosen: Decision): void {
  const model = panel.content.model!.sharedModel;
  const sources = model.cells.map(one => one.getSource());
  const below = [split.after, chosen.tail ?? ''].filter(one => one.trim() !== '');
  let at = index;
  if (split.before.trim() === '') {
    model.getCell(index).setSource(chosen.cell);
  } else {
    model.getCell(index).setSource(split.before.trimEnd());
    model.insertCell(++at, { cell_type: 'code', source: chosen.cell });
  }
  below.forEach((source, number) => {
    model.insertCell(at + 1 + number, { cell_type: 'code', source: source.trim() });
  });
  if (!loads(sources)) {
    model.insertCell(index, { cell_type: 'code', source: LOAD });
    at++;
  }
  panel.content.deselectAll();
  panel.content.activeCellIndex = at;
}

async function sweepCell(panel: NotebookPanel, transport: ServerTransport): Promise<void> {
  const cell = panel.content.activeCell!.model.sharedModel;
  const split = meant(panel);
  const source = split.chosen;
  const whole = cell.getSource();
  const ask = (name: string | null) =>
    transport.post<Rewrite>('api/rewrite', { source, name: name || null });
  const rewrite = await ask(null);
  const others = panel.content.model!.sharedModel.cells.map(one => one.getSource());
  const body = new SweepDialogBody(source, rewrite, !loads(others), ask, applicable => {
    dialog.node.querySelector<HTMLButtonElement>('.jp-mod-accept')!.disabled = !applicable;
  });
  const result = verdict(rewrite, source);
  const applies = result === 'good' || result === 'mendable';
  const dialog = new Dialog<Decision | null>({
    title: 'Sweep This Cell',
    body,
    buttons: applies
      ? [Dialog.cancelButton(), Dialog.okButton({ label: 'Apply' })]
      : [Dialog.cancelButton({ label: 'Close' })],
    defaultButton: applies ? 1 : 0
  });
  dialog.addClass('mce-mod-sweepDialog');
  const answer = await dialog.launch();
  if (!answer.button.accept || !answer.value) {
    return;
  }
  // The cell may have moved or gone meanwhile, by somebody else's hand.
  const index = panel.content.model?.sharedModel.cells.indexOf(cell) ?? -1;
  if (index < 0 || cell.getSource() !== whole) {
    throw new Error(`The cell ${index < 0 ? 'is gone' : 'changed'} meanwhile; nothing was done.`);
  }
  apply(panel, index, split, answer.value);
}

export default notebookPlugin(
  'mce-notebook:sweep-cell',
  'Turns a cell with loops into a sweep.',
  ({ app, transport, tracker, palette }) => {
    app.commands.addCommand(SWEEP_CELL, {
      label: 'Sweep This Cell…',
      caption: 'Run the loops of the active cell in parallel and keep every result',
      icon: sweepIcon,
      isEnabled: () => tracker.activeCell?.model.type === 'code',
      execute: async () => {
        const panel = tracker.currentWidget;
        if (!panel?.content.activeCell) {
          return;
        }
        try {
          await sweepCell(panel, transport);
        } catch (error) {
          Notification.error(told(error), { autoClose: 8000 });
        }
      }
    });
    palette?.addItem({ command: SWEEP_CELL, category: 'Experiments' });
    const changed = () => app.commands.notifyCommandChanged(SWEEP_CELL);
    tracker.currentChanged.connect(changed);
    tracker.activeCellChanged.connect(changed);
  }
);
