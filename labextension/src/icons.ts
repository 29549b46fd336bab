/** Our icons, in the colours of the theme. */

import { LabIcon } from '@jupyterlab/ui-components';

// A grid that fills: known points are solid, the others wait.
const GRID = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3 jp-icon-selectable" fill="#616161">
    <path d="M3 3h5v5H3zM9.5 3h5v5h-5zM3 9.5h5v5H3zM3 16h5v5H3zM9.500 9.500h5v5h-5z"/>
    <path d="M16 3h5v5h-5zm1.200 1.200v2.600h2.600V4.200zM16 9.500h5v5h-5zm1.200 1.200v2.600h2.600v-2.600zM9.500 16h5v5h-5zm1.200 1.200v2.600h2.600v-2.600zM16 16h5v5h-5zm1.200 1.200v2.600h2.600v-2.600z" fill-rule="evenodd"/>
  </g>
</svg>`;

// Loops that become points side by side.
const SWEEP = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="#616161">
    <path d="M3 4h9v2H3zM3 11h7v2H3zM3 18h9v2H3zM10.500 8.200 14.300 12l-3.800 3.800z"/>
    <path d="M16 3h4v4h-4zM16 10h4v4h-4zM16 17h4v4h-4z"/>
  </g>
</svg>`;

const TARGET = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="#616161">
    <path d="M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zm9 3h-2.100A7 7 0 0 0 13 5.100V3h-2v2.100A7 7 0 0 0 5.100 11H3v2h2.100A7 7 0 0 0 11 18.900V21h2v-2.100a7 7 0 0 0 5.900-5.900H21zm-9 6a5 5 0 1 1 0-10 5 5 0 0 1 0 10z"/>
  </g>
</svg>`;

export const experimentsIcon = new LabIcon({ name: 'mce-notebook:experiments', svgstr: GRID });
export const sweepIcon = new LabIcon({ name: 'mce-notebook:sweep-cell', svgstr: SWEEP });
export const revealIcon = new LabIcon({ name: 'mce-notebook:reveal', svgstr: TARGET });
