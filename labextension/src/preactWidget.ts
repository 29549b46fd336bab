/** A Preact tree as a Lumino widget. */

import { Widget } from '@lumino/widgets';
import type { Message } from '@lumino/messaging';
import { render, type VNode } from 'preact';

export abstract class PreactWidget extends Widget {
  /** Draw it again; `content` says what. */
  refresh(): void {
    if (this.isAttached && !this.isDisposed) {
      render(this.content(), this.node);
    }
  }

  protected abstract content(): VNode;

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this.refresh();
  }

  protected override onBeforeDetach(message: Message): void {
    // Effects end here, so that a hidden view keeps no subscription.
    render(null, this.node);
    super.onBeforeDetach(message);
  }
}
