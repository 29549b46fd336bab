/** The view in any element of any page. */

import { render } from 'preact';

import { SweepView, type Props } from './SweepView';

/** Show it in `node`; call what is returned to take it away. */
export function mount(node: HTMLElement, props: Props): () => void {
  render(<SweepView {...props} />, node);
  return () => render(null, node);
}
