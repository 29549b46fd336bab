/** What somebody chose to look at, kept per sweep while the page is open: outputs are rebuilt as one scrolls. */

import type { Camera } from './camera';
import type { Choice } from './transport';

export interface Look {
  choice?: Choice;
  /** Which part of which map; on another map it means nothing. */
  part?: { axes: string; width: number; height: number; camera: Camera };
}

const MOST = 200;
const looks = new Map<string, Look>();

export function lookOf(sweep: string): Look {
  const look = looks.get(sweep) ?? {};
  // The one used last is the last to be forgotten.
  looks.delete(sweep);
  looks.set(sweep, look);
  if (looks.size > MOST) {
    looks.delete(looks.keys().next().value!);
  }
  return look;
}
