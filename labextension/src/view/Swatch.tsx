/** The colour and mark of a status, as in the heatmap. */

import type { Mark, Status } from './statuses';

const PATHS: Record<Mark, string> = {
  none: '',
  cross: 'M3.5 3.5 8.5 8.5 M3.5 8.5 8.5 3.5',
  bar: 'M3 6H9',
  slash: 'M3.5 8.5 8.5 3.5',
  clock: 'M6 3V6H9',
  ring: 'M8.2 6A2.2 2.2 0 1 1 3.8 6 2.2 2.2 0 1 1 8.2 6',
  dot: 'M6.6 6A.6 .6 0 1 1 5.4 6 .6 .6 0 1 1 6.6 6'
};

export function Swatch({ status }: { status: Status }) {
  return (
    <svg class="mce-swatch" viewBox="0 0 12 12" aria-hidden="true" focusable="false">
      <rect
        x="0.5"
        y="0.5"
        width="11"
        height="11"
        rx="2"
        style={{ fill: `var(${status.colour})` }}
      />
      <path d={PATHS[status.mark]} />
    </svg>
  );
}
